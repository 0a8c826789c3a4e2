"""Cells that moved between two results, or since an older commit."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from mmaction_lite.benchmark.changes import changes_since, compare_results, is_same_machine, read_comparable
from mmaction_lite.cli import app
from mmaction_lite.errors import UserError

DOCS = Path(__file__).parents[2] / "docs"


def rounds(*seconds: float) -> list[list[dict[str, float]]]:
    return [[{"iteration": value}] for value in seconds]


def result(
    ours: tuple[float, ...], theirs: tuple[float, ...] = (2.0, 2.1, 2.2), **more: Any
) -> dict[str, Any]:
    row = {
        "setting": "TSN 1x1x3",
        "recipe": "tsn",
        "peer": "mmaction2",
        "peer_precision": "float32",
        "frameworks": {"ours": "mmaction-lite 1", "peer": "MMAction2 1"},
        "train": {"ours": rounds(*ours), "peer": rounds(*theirs)},
        "memory_mib": {"ours": 100.0, "peer": 200.0},
        **more,
    }
    environment = {"device": "cpu", "processor": "P", "cores": 2, "torch": "2"}
    options = {"batch_size": 1, "precision": "float32", "compile": None, "devices": 1, "threads": 2}
    return {"version": 1, "environment": environment, "options": options, "results": [row]}


def test_cells_move_if_their_ranges_are_apart_and_the_medians_differ():
    old = result((1.0, 1.1, 1.2))
    for ours, moved in (
        ((1.05, 1.4, 1.5), []),  # the ranges overlap
        ((1.3, 1.4, 1.5), ["training step, s", "ratio of the training step"]),
        ((0.7, 0.8, 0.9), ["training step, s", "ratio of the training step"]),
    ):
        changes, cells = compare_results(old, result(ours))
        assert [change.cell for change in changes] == moved
        assert cells == 6
        assert all(change.is_worse == (ours[0] > 1) for change in changes)
    near = result((1.0, 1.0, 1.0)), result((1.02, 1.02, 1.02), (2.04, 2.14, 2.24))
    assert compare_results(*near)[0] == []


def test_memory_has_no_rounds_and_a_peer_is_never_worse():
    new = result((1.0, 1.1, 1.2), (3.0, 3.1, 3.2), memory_mib={"ours": 110.0, "peer": 200.0})
    changes, _ = compare_results(result((1.0, 1.1, 1.2)), new)
    assert {(change.framework, change.cell): change.is_worse for change in changes} == {
        ("mmaction-lite", "memory, MiB"): True,
        ("mmaction2", "training step, s"): False,
        ("mmaction2", "ratio of the training step"): False,
        ("mmaction2", "ratio of the memory"): True,
    }
    assert str(changes[0]) == (
        "TSN 1x1x3, mmaction-lite: memory, MiB 100 (100–100) → 110 (110–110), +10%, worse"
    )


def test_other_machines_are_compared_by_ratios_only():
    old, new = result((1.0, 1.1, 1.2)), result((5.0, 5.1, 5.2))
    new["environment"]["processor"] = "Q"
    assert not is_same_machine(old, new)
    changes, cells = compare_results(old, new)
    assert cells == 2
    assert [change.cell for change in changes] == ["ratio of the training step"]


def test_ratios_to_an_older_commit_that_exclude_one():
    found = result((1.0, 1.1, 1.2), peer="commit abc")
    found["results"].append(copy.deepcopy(found["results"][0]) | {"peer": "mmaction2"})
    assert [(change.cell, change.is_worse) for change in changes_since(found)] == [
        ("ratio of the training step", False),
        ("ratio of the memory", False),
    ]
    found["results"][0]["train"]["ours"] = rounds(1.9, 2.1, 2.3)  # around 1
    assert [change.cell for change in changes_since(found)] == ["ratio of the memory"]


def test_the_command_prints_changes_and_may_fail(tmp_path, capsys):
    old, new, other = (tmp_path / f"{name}.json" for name in ("old", "new", "other"))
    old.write_text(json.dumps(result((1.0, 1.1, 1.2))))
    new.write_text(json.dumps(result((2.0, 2.1, 2.2))))
    other.write_text(json.dumps(result((1.0,), (1.0,), setting="TSM 1x1x8")))
    app(["benchmark", "compare", str(old), str(new)], standalone_mode=False)
    assert "of 6 cells, moved beyond their spread: 2" in capsys.readouterr().out
    app(["benchmark", "compare", str(old), str(new), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["cells"] == 6
    with pytest.raises(UserError, match="2 cells became worse, such as: TSN 1x1x3"):
        app(["benchmark", "compare", str(old), str(new), "--check"], standalone_mode=False)
    with pytest.raises(UserError, match="have no cell in common"):
        app(["benchmark", "compare", str(old), str(other)], standalone_mode=False)


def test_the_example_on_the_page_is_that_of_the_committed_result():
    found = json.loads((DOCS / "against.json").read_text())
    page = " ".join((DOCS / "benchmark.md").read_text(encoding="utf-8").split())
    assert "--quick --recipes 'VideoMAE-S 16x4' --against f3525af5c" in found["command"]
    changes = changes_since(found)
    assert len(changes) == 1
    assert f"* {changes[0]} ```" in page


def bad(**row: Any) -> dict[str, Any]:
    found = result((1.0, 1.1, 1.2))
    found["results"][0] |= row
    return found


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "is no result of mmaction-lite benchmark"),
        ({"version": 2, "results": []}, "expected version 1 with a list of results"),
        ({"version": 1, "results": [{}]}, "cannot be read"),
        ({"version": 1, "results": [3], "environment": 1, "options": 2}, "cannot be read"),
        (bad(train={"ours": rounds(1.0, math.nan, 2.0)}), "a measurement is nan, expected a positive number"),
        (bad(train={"ours": rounds(1.0, 1e999, 2.0)}), "a measurement is inf"),
        (bad(train={"ours": rounds(0.0)}), "a measurement is 0.0"),
        (bad(train={"ours": []}), "cannot be read"),
        (bad(train={"ours": rounds(1.0), "peer": rounds(1.0, 2.0)}), "cannot be read"),
        (bad(train={"ours": [[{"iteration": "fast"}]]}), "cannot be read"),
        (bad(memory_mib={"ours": 0, "peer": 0}), "a measurement is 0"),
    ],
)
def test_foreign_and_damaged_files_are_one_line(tmp_path, found, message):
    (tmp_path / "b.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match=message) as error:
        read_comparable(tmp_path / "b.json")
    assert str(error.value).startswith(f"{tmp_path}/b.json: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", '{"version": 1, "resul', "[" * 100_000, "\0"])
def test_files_that_are_not_json_are_one_line(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UserError, match="is no result of mmaction-lite benchmark"):
        read_comparable(tmp_path / "b.json")


def test_swapped_files_and_missing_rows_are_stated(tmp_path, capsys):
    for name, day in (("old", 1), ("new", 2)):
        found = result((1.0, 1.1, 1.2)) | {"date": f"2026-01-0{day}"}
        if name == "old":
            found["results"] += result((1.0,), (2.0,), setting="TSM 1x1x8")["results"]
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    old, new = str(tmp_path / "old.json"), str(tmp_path / "new.json")
    app(["benchmark", "compare", old, new], standalone_mode=False)
    error = " ".join(capsys.readouterr().err.split())
    assert "new.json: has no row TSM 1x1x8" in error
    assert "was measured before" not in error
    app(["benchmark", "compare", new, old], standalone_mode=False)
    assert "was measured before" in " ".join(capsys.readouterr().err.split())
