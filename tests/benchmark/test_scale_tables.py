"""Growth and data plane on the benchmark page, recomputed from their files."""

import json
import re
from pathlib import Path

from mmaction_lite.benchmark.scale_tables import data_plane_table, growth_table, scale_sections

DOCS = Path(__file__).parents[2] / "docs"


def rows(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_growth_is_the_last_point_relative_to_the_first():
    points = {"10": {"memory, MiB": 50.0, "start-up, CPU s": 2.0}, "20": {"memory, MiB": 1.0}}
    points["1000"] = {"memory, MiB": 75.0, "start-up, CPU s": 8.0}
    table = growth_table({"classes": points})
    assert table.splitlines()[0] == "| quantity | range | factor | memory | start-up |"
    assert rows(table) == [["classes", "10 to 1,000", "100", "1.5", "4.0"]]


def test_the_page_shows_the_committed_numbers():
    page = (DOCS / "benchmark.md").read_text(encoding="utf-8")
    growth = json.loads((DOCS / "growth.json").read_text())
    assert growth_table(growth) in page
    assert {what: len(points) >= 4 for what, points in growth.items()} == dict.fromkeys(
        ("clips in the list", "frames per clip", "classes", "decoding workers"), True
    )
    plane = json.loads((DOCS / "data_plane.json").read_text())
    assert data_plane_table(plane) in page
    assert (DOCS / "growth.png").stat().st_size < 120_000


def test_loaders_read_as_the_text_of_the_page_says():
    cases = {case["case"]: case for case in json.loads((DOCS / "data_plane.json").read_text())["cases"]}
    assert cases["8 loaders"]["clips_per_second"] > 4 * cases["1 loader"]["clips_per_second"]
    refused = cases["64 loaders, 32 requests at once"]
    assert refused["refused_requests"] > 0
    assert refused["unreadable"] < 0.05
    assert cases["64 loaders, 96 tar files"]["index_requests_per_clip"] > 0.2
    assert re.search(r"64 loaders \|", data_plane_table({"cases": list(cases.values())}))


def test_without_files_there_are_no_sections(tmp_path):
    assert scale_sections(tmp_path) == []
