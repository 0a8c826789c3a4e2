import json

import pytest
from rich.console import Console

from mmaction_lite import demo
from mmaction_lite.data.generated import motions
from mmaction_lite.demo import run_demo
from mmaction_lite.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_demo_runs_all_steps_and_can_be_repeated(tmp_path, monkeypatch, capsys):
    """On a tenth of the clips; what it learns from all of them is checked where `make demo` runs."""
    splits = {"train": range(20), "val": range(500, 505), "test": range(600, 620)}
    defaults = motions.generate.__kwdefaults__ or {}
    monkeypatch.setattr(motions.generate, "__kwdefaults__", defaults | {"splits": splits})
    monkeypatch.setattr(motions, "SPLITS", splits)
    monkeypatch.setattr(demo, "WINDOW_EPOCHS", 3)
    seconds = {"train": (60.0,), "val": (20.0,), "test": (20.0,)}
    monkeypatch.setattr(
        demo.generate_long_set,
        "__kwdefaults__",
        {**(demo.generate_long_set.__kwdefaults__ or {}), "seconds": seconds, "workers": 0},
    )
    out, console = tmp_path / "demo", Console(stderr=True)
    run_demo(out, tmp_path / "motions", 0, console)
    (out / "mine.txt").write_text("kept")
    run_demo(out, tmp_path / "motions", 0, console)
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["tsn"]) == set(summary["tsm"]) == {"top1", "top5", "mean_class"}
    assert {"generate", "train_tsn", "train_tsm", "timeline"} <= set(summary["seconds"])
    assert 0 <= summary["timeline"]["f1"] <= 1
    assert summary["timeline"]["num_actions"] >= 2
    assert (out / "timeline" / "timeline.png").stat().st_size > 5000
    assert (out / "report.html").stat().st_size > 50_000
    assert (out / "mine.txt").read_text() == "kept"
    shown = capsys.readouterr().out
    assert "20 videos" in shown
    assert shown.rstrip().endswith(f" serve {out / 'tsm'}")


def test_the_demo_refuses_a_folder_with_other_files(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UserError, match="is not empty and not the folder of a demo"):
        run_demo(tmp_path, tmp_path / "motions", 0, Console(stderr=True))
    assert (tmp_path / "summary.json").read_text() == "{}"
