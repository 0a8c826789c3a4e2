"""Every number of docs/benchmark.md comes from docs/benchmarks/*.json, recomputed here from the raw times."""

import json
import re
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from mmaction_lite.benchmark.first_page import weights_for
from mmaction_lite.benchmark.page import render_page
from mmaction_lite.benchmark.run import read_result

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = sorted((DOCS / "benchmarks").glob("*.json"))
ALONE = [file for file in RESULTS if json.loads(file.read_text())["options"]["devices"] == 1]

# mmaction2 at 843914b0, docs/benchmark.md: iteration, data (seconds), memory (MB), clips per GPU.
FIRST_PAGE = {
    ("TSN 1x1x3", "mmaction-lite, 2020"): (0.2966, 0.0030, 8339, 32),
    ("TSN 1x1x3", "open-mmaction"): (0.3659, 0.0102, 8245, 32),
    ("I3D 32x2", "mmaction-lite, 2020"): (0.4528, 0.1458, 5169, 8),
    ("I3D 32x2", "open-mmaction"): (0.3659, 0.0102, 5065, 8),
    ("I3D 32x2, fast", "mmaction-lite, 2020"): (0.3886, 0.3733, 5169, 8),
    ("TSM 1x1x8", "mmaction-lite, 2020"): (0.3052, 0.0095, 7077, 8),
    ("TSM 1x1x8", "HAN (MIT's TSM)"): (0.3843, 0.0143, 9337, 8),
}
EMPTY_ON_THE_FIRST_PAGE = {
    *("SlowFast 4x16", "SlowFast 8x8", "SlowOnly 4x16", "SlowOnly 8x8"),
    *("R(2+1)D-34 8x8", "R(2+1)D-34 32x2"),
}

# The tables of that page: model, recipe without its data set, framework by its name today.
OURS, OPEN, HAN, FACEBOOK = "mmaction-lite", "MMAction2", "MIT TSM", "PySlowFast"
FIRST_PAGE_ROWS = [
    ("TSN", "tsn_r50_1x1x3_100e", OURS),
    ("TSN", "tsn_r50_1x1x3_100e", OPEN),
    ("I3D", "i3d_r50_32x2x1_100e", OURS),
    ("I3D", "i3d_r50_fast_32x2x1_100e", OURS),
    ("I3D", "i3d_r50_32x2x1_100e", OPEN),
    ("TSM", "tsm_r50_1x1x8_100e", OURS),
    ("TSM", "tsm_r50_1x1x8_100e", HAN),
    ("SlowFast", "slowfast_r50_4x16x1_256e", OURS),
    ("SlowFast", "slowfast_r50_4x16x1_256e", FACEBOOK),
    ("SlowFast", "slowfast_r50_8x8x1_256e", OURS),
    ("SlowFast", "slowfast_r50_8x8x1_256e", FACEBOOK),
    ("SlowOnly", "slowonly_r50_4x16x1_256e", OURS),
    ("SlowOnly", "slowonly_r50_4x16x1_256e", FACEBOOK),
    ("SlowOnly", "slowonly_r50_8x8x1_256e", OURS),
    ("SlowOnly", "slowonly_r50_8x8x1_256e", FACEBOOK),
    ("R(2+1)D", "r2plus1d_r34_32x2x1_180e", OURS),
    ("R(2+1)D", "r2plus1d_r34_8x8x1_180e", OURS),
]

Table = list[list[str]]


def read_tables(text: str) -> list[Table]:
    """The rows of every table, without the heading."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[line.strip("| ").split(" | ") for line in block.splitlines()[2:]] for block in blocks]


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "benchmark.md").read_text(encoding="utf-8").replace("|  |", "| – |")


@pytest.fixture(params=ALONE, ids=lambda file: file.stem)
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text()) | {"stem": request.param.stem}


@pytest.fixture
def tables(page: str, found: dict[str, Any]) -> list[Table]:
    """Main table, ratios, stages and decoding of one file; the ratios may stand on top of the page."""
    *above, details = (read_tables(part) for part in sections(page) if f"/{found['stem']}.json)" in part)
    return [details[0], above[0][1], *details[1:]] if above else details


def sections(page: str) -> list[str]:
    return re.split(r"^## ", page, flags=re.M)


def assert_shows(cell: str, *values: float) -> None:
    """Check that the numbers of `cell` are `values`, rounded to the digits that it prints."""
    printed = re.findall(r"\d+(?:\.\d+)?(?:e[+-]\d+)?%?", cell)
    assert len(printed) == len(values), cell
    for value, text in zip(values, printed, strict=True):
        mantissa, exponent, _ = text.rstrip("%").partition("e")
        form = exponent or ("%" if text.endswith("%") else "f")
        assert text == f"{value:.{len(mantissa.partition('.')[2])}{form}}", cell


def times(turns: list[list[dict[str, float]]], stage: str = "iteration") -> list[float]:
    return [step.get(stage, 0.0) for turn in turns for step in turn]


def ratios(phase: dict[str, Any]) -> list[float]:
    """Median, least and most of the rounds' ratios of mean times."""
    rounds = zip(phase["ours"], phase["peer"], strict=True)
    each = [fmean(times([ours])) / fmean(times([peer])) for ours, peer in rounds]
    return [median(each), min(each), max(each)]


def from_files(row: dict[str, Any], side: str) -> Any:
    return next((row[source][side] for source in ("video", "frames") if side in row.get(source, {})), None)


def has_peer(row: dict[str, Any]) -> bool:
    return "peer" in row["train"] or from_files(row, "peer") is not None


def assert_shows_memory(cell: str, row: dict[str, Any], side: str) -> None:
    held = row["memory_mib"]
    if side in held:
        assert_shows(cell, held[side])
    else:
        assert cell in ("–", "– (not measured)")


def name_of(found: dict[str, Any], row: dict[str, Any], side: str) -> str:
    """The framework and its version, with the precision where it is not that of the table."""
    is_other = side == "peer" and row["peer_precision"] == "float32" != found["options"]["precision"]
    return row["frameworks"][side] + ", float32" * is_other


def first_rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The first row of each setting."""
    rows: dict[str, dict[str, Any]] = {}
    for row in found["results"]:
        rows.setdefault(row["setting"], row)
    return rows


def test_the_page_is_rendered_from_the_files():
    results = [(file, read_result(file)) for file in RESULTS]
    assert (DOCS / "benchmark.md").read_text(encoding="utf-8") == render_page(results, DOCS)
    for file in ALONE:
        assert file.with_suffix(".png").exists()


def test_main_table(found, tables):
    """Step and data time, inference, memory, clips per second, share of the machine's limits."""
    precision, limits = found["options"]["precision"], found["limits"]
    sides = []
    for row in found["results"]:
        new = not any(other[1] == "ours" and other[0]["setting"] == row["setting"] for other in sides)
        sides += [(row, "ours")] * new + [(row, "peer")] * has_peer(row)
    assert len(tables[0]) == len(sides)
    for cells, (row, side) in zip(tables[0], sides, strict=True):
        setting, framework, clips, iteration, step, inference, memory, rate, limit, _ = cells
        assert setting == row["setting"]
        assert framework == name_of(found, row, side)
        assert_shows(clips, row["batch_size"])
        files = from_files(row, side)
        train = median(times(row["train"][side])) if side in row["train"] else None
        whole = median(times(files)) if files else train
        assert_shows(iteration, *([whole, median(times(files, "data"))] if files else []))
        assert_shows(step, *([train] if train else []))
        scored = row.get("infer", {})
        assert_shows(inference, *([median(times(scored[side]))] if side in scored else []))
        assert_shows_memory(memory, row, side)
        assert_shows(rate, row["batch_size"] / whole)
        if train is None:
            assert_shows(limit)
            continue
        own = row["peer_precision"] if side == "peer" else precision
        bytes_moved = 3 / 2 * row["traffic_bytes"] * (1 if own == "float32" else 0.5)
        shares = [bytes_moved / (limits["bytes_copied"] * 1e9) / train]
        if own == precision:
            shares.insert(0, 3 * row["multiply_adds"] / (limits["multiply_adds"] * 1e9) / train)
        assert_shows(limit, *shares)


def test_ratio_table(found, tables):
    """Median, least and most of the rounds' ratios, memory, difference of the logits."""
    rows = [row for row in found["results"] if has_peer(row)]
    for cells, row in zip(tables[1], rows, strict=True):
        assert cells[0] == row["setting"]
        assert cells[1] == name_of(found, row, "peer")
        source = "video" if "peer" in row.get("video", {}) else "frames"
        for cell, phase in zip(cells[2:], (source, "train", "infer"), strict=False):
            steps = row.get(phase, {})
            assert_shows(cell, *(ratios(steps) if "peer" in steps else []))
        held = row["memory_mib"]
        assert_shows(cells[-2], *([held["ours"] / held["peer"]] if "peer" in held else []))
        assert_shows(cells[-1], *([row["check"]["difference"]] if "check" in row else []))


def test_stage_table(found, tables):
    """Milliseconds of each stage; share and rate of convolutions and matrix products."""
    rows = first_rows(found)
    assert [cells[0] for cells in tables[2]] == list(rows)
    for cells in tables[2]:
        row = rows[cells[0]]
        files = from_files(row, "ours")
        assert_shows(cells[1], *([1000 * median(times(files, "data"))] if files else []))
        for cell, stage in zip(
            cells[2:], ("copy", "normalise", "forward", "backward", "optimizer"), strict=False
        ):
            assert_shows(cell, 1000 * median(times([row["stages"]], stage)))
        for cell, phase, passes in ((cells[-2], "train", 3), (cells[-1], "infer", 1)):
            spent = row["profile"].get(phase)
            if spent is None:
                assert_shows(cell)
                continue
            rate = passes * row["multiply_adds"] / 1e9 / spent["products"] / found["limits"]["multiply_adds"]
            assert_shows(cell, spent["products"] / sum(spent.values()), rate)


def test_feeding_table(found, tables):
    """Decoding cost of a clip and what limits the iteration."""
    rows = {name: row for name, row in first_rows(found).items() if from_files(row, "ours")}
    if not rows:
        assert len(tables) in (3, 5)  # the page's own tables follow the last file's
        return
    assert [cells[0] for cells in tables[3]] == list(rows)
    for cells in tables[3]:
        row, files = rows[cells[0]], from_files(rows[cells[0]], "ours")
        rate = row["batch_size"] / median(times(row["train"]["ours"]))
        assert_shows(cells[1], rate)
        for cell, source in zip(cells[2:4], ("video", "frames"), strict=True):
            cost = row["read_milliseconds"].get(source)
            assert_shows(cell, *([cost, rate * cost / 1000] if cost is not None else []))
        waiting = sum(times(files, "data")) / sum(times(files))
        assert_shows(cells[5], waiting)
        source = "video" if "video" in row else "frames"
        busy = rate * row["read_milliseconds"][source] / 1000
        is_fed = waiting < 0.02 or busy < 0.5 * found["options"]["workers"]
        assert cells[6] == ("network" if is_fed else "decoding")


def test_tables_on_top_have_the_rows_of_the_first_page_in_its_order(page):
    """Each followed by the other frameworks of its setting; a cell without a number states the reason."""
    heading = (
        "| Model | Dataset | Setting | Framework | Iter time (data time), s | Memory, MiB | ckpt & log |"
    )
    tops = [part for part in sections(page) if heading in part]
    machines = ["AMD EPYC", "Intel(R) Xeon(R) Processor", "NVIDIA H200"]
    assert [part.splitlines()[0] for part in tops] == machines
    for part in tops:
        table = read_tables(part)[0]
        shown = [(cells[0], recipe_of(cells), cells[3].strip("*")) for cells in table]
        listed = iter(shown)
        for model, setting, framework in FIRST_PAGE_ROWS:
            assert any(row[:2] == (model, setting) and row[2].startswith(framework) for row in listed), (
                f"{model}, {setting}, {framework}: not in its place"
            )
        assert {row[:2] for row in shown} == {row[:2] for row in FIRST_PAGE_ROWS}
        for cells in table:
            assert all(re.match(r"\d|– \(\w", cell) for cell in cells[4:6]), cells
            assert ".json)" in cells[6] or "not measured on this machine" in cells[4]


def test_numbers_on_top_are_those_of_the_files(page):
    for file, part in zip(("cpu", "cpu_intel", "h200"), sections(page)[1:4], strict=True):
        found = json.loads((DOCS / "benchmarks" / f"{file}.json").read_text())
        rows = {
            (row["recipe"].removesuffix("_kinetics400_rgb"), name_of(found, row, side)): (row, side)
            for row in reversed(found["results"])
            for side in ("ours", "peer")[: 1 + has_peer(row)]
        }
        checked = 0
        for cells in read_tables(part)[0]:
            framework, iteration, memory = cells[3].strip("*"), *cells[4:6]
            row, side = rows.get((recipe_of(cells), framework), (None, ""))
            if row is None:
                assert iteration == memory == "– (not measured on this machine)"
                continue
            if files := from_files(row, side):
                assert_shows(iteration, median(times(files)), median(times(files, "data")))
            assert_shows_memory(memory, row, side)
            checked += 1
        assert checked > 15


def recipe_of(cells: list[str]) -> str:
    """The recipe of a row on top, without the data set."""
    return cells[2].partition("]")[0].lstrip("[")


def test_weights_of_a_recipe_are_named():
    assert weights_for("slowfast_r50_8x8x1_256e_kinetics400_rgb", None) == [
        "slowfast_r50_8x8x1_256e_kinetics400_rgb@mmaction2",
        "slowfast_r50_8x8_kinetics400_rgb@pytorchvideo",
    ]
    assert weights_for("tsm_r50_1x1x8_100e_kinetics400_rgb", "mit_tsm") == [
        "tsm_r50_1x1x8_50e_kinetics400_rgb@mit"
    ]
    assert weights_for("slowonly_r50_4x16x1_256e_kinetics400_rgb", "pyslowfast") == []


def test_how_the_numbers_were_made_is_folded_below_the_ratios(page):
    fold = page.index("<details><summary>How the numbers were made</summary>")
    assert page.index("### Ratios") < fold < page.index(": all measurements") < page.index("Several devices")


def test_first_page_table(page):
    """The numbers of 2020, as published, and what one GPU does now."""
    (table,) = [table for table in read_tables(page) if table[0][:2] == ["TSN 1x1x3", "mmaction-lite, 2020"]]
    gpu = next(result for result in map(read_result, ALONE) if result["options"]["device"] == "cuda")
    now = {
        name: row["batch_size"] / median(times(from_files(row, "ours") or row["train"]["ours"]))
        for name, row in first_rows(gpu).items()
    }
    assert {(cells[0], cells[1]) for cells in table if cells[1] != "–"} == FIRST_PAGE.keys()
    assert {cells[0] for cells in table if cells[1] == "–"} == EMPTY_ON_THE_FIRST_PAGE
    for setting, framework, iteration, memory, rate, rate_now, _ in table:
        assert_shows(rate_now, now[setting])
        if framework == "–":
            assert (iteration, memory, rate) == ("empty", "empty", "–")
            continue
        seconds, data, megabytes, clips = FIRST_PAGE[setting, framework]
        assert_shows(iteration, seconds, data)
        assert_shows(memory, megabytes)
        assert_shows(rate, clips / seconds)


def test_scaling_table(page):
    """Predicted and measured seconds of several processes."""
    found = json.loads((DOCS / "benchmarks" / "two_processes.json").read_text())
    devices = found["options"]["devices"]
    table = read_tables(page[page.index("## Several devices") :])[0]
    for cells, row in zip(table, found["results"], strict=True):
        apart, exchange, together = (
            median(times(row[phase]["ours"])) for phase in ("apart", "link", "train")
        )
        backward = median(times([row["stages"]], "backward"))
        last = exchange * min(25e6, 4 * row["parameters"]) / (4 * row["parameters"])
        predicted = apart + max(exchange - 0.8 * backward, last)
        assert devices == 2
        assert cells[0] == row["setting"]
        sharded = median(times(row["sharded"]["ours"]))
        values = apart, exchange, predicted, together, predicted / together, sharded
        for cell, value in zip(cells[1:], values, strict=True):
            assert_shows(cell, value)
