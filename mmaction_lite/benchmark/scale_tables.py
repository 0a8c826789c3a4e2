"""Tables of `benchmarks/growth.py` and `benchmarks/data_plane.py` for the benchmark page."""

import json
from pathlib import Path
from typing import Any

from mmaction_lite.benchmark.tables import markdown

GROWTH_FILE, DATA_PLANE_FILE = "growth.json", "data_plane.json"


def scale_sections(folder: Path) -> list[str]:
    """Return the sections about growth and the data plane, of those files that `folder` holds."""
    sections = []
    if (growth := folder / GROWTH_FILE).is_file():
        table = growth_table(json.loads(growth.read_text(encoding="utf-8")))
        sections += ["## Growth", GROWTH, "![growth](growth.png)", table]
    if (plane := folder / DATA_PLANE_FILE).is_file():
        found = json.loads(plane.read_text(encoding="utf-8"))
        sections += ["## Many loaders and one object store", DATA_PLANE, data_plane_table(found)]
    return sections


def growth_table(found: dict[str, Any]) -> str:
    """Return the cost at the last point relative to the first one, by quantity."""
    lines = []
    for what, points in found.items():
        (first, *_, last), (start, *_, end) = points.values(), points
        shares = [f"{last[cost] / first[cost]:.1f}" for cost in first]
        lines.append((what, f"{int(start):,} to {int(end):,}", f"{int(end) / int(start):,.0f}", *shares))
    costs = [cost.partition(",")[0] for cost in next(iter(next(iter(found.values())).values()))]
    return markdown(("quantity", "range", "factor", *costs), lines)


def data_plane_table(found: dict[str, Any]) -> str:
    """Return the throughput of loaders beside one store."""
    lines = [
        (
            case["case"],
            f"{case['clips_per_second']:.0f}",
            "{1:.1f} ({0:.1f}–{2:.1f})".format(*case["per_loader"]),
            "{:.0f}, {:.0f}".format(*case["milliseconds"]),
            f"{case['megabytes_per_second']:.0f}",
            f"{case['index_requests_per_clip']:.2f}",
            f"{case['refused_requests']}",
            f"{case['unreadable']:.0%}",
        )
        for case in found["cases"]
    ]
    head = (
        "loaders",
        "clips/s",
        "clips/s per loader",
        "ms per clip: median, 99 %",
        "MB/s",
        "index requests per clip",
        "refused requests",
        "unreadable clips",
    )
    return markdown(head, lines)


GROWTH = """\
`python benchmarks/growth.py docs/growth.json docs/growth.png` measures how CPU time and memory of the
training process grow with clips in the list, frames per clip, classes and decoding workers. The table
compares the last point with the first one. A list of a thousand times as many clips does not change the
iteration; its paths are read at the start and held in memory. Start-up and memory include network, first
batch and libraries. With many classes, the classifier dominates."""

DATA_PLANE = """\
`python benchmarks/data_plane.py data/scenes docs/data_plane.json` runs up to 64 loaders, as 64 ranks of a
training, beside one object store that answers HTTP ranges after 20 ms. Each loader reads clips of 1 MB in
random order out of tar files. Loaders and store share two cores. Until these are busy, throughput grows
with the loaders; decoding takes far more CPU time than reading. Three limits follow. A loader keeps the
indexes of 64 tar files; with more tar files, it reads indexes again. A busy store refuses requests (503); a
loader asks again five times within about three seconds, so that clips arrive later instead of being lost. A
store that is overloaded for longer makes clips unreadable, which the training reports and replaces. Before
refused requests were repeated, 64 % of the reads failed in the last row."""
