"""Table in the form of the benchmark page with which this project started."""

import re
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmaction_lite.benchmark.comparison import OURS, PEER, SOURCES
from mmaction_lite.benchmark.settings import find_setting
from mmaction_lite.benchmark.tables import (
    FILES,
    Ratio,
    fed,
    framework,
    is_measured,
    markdown,
    part_ratios,
    seconds,
)
from mmaction_lite.weights.catalogue import SOURCES as PROJECTS
from mmaction_lite.weights.catalogue import list_weights


class PageRow(NamedTuple):
    """Row of the first page.

    Args:
        model: name of the model there.
        setting: row of this benchmark.
        peer: framework of the row; None: this package. MMAction2 succeeds open-mmaction, and mit_tsm is HAN.
    """

    model: str
    setting: str
    peer: str | None


ROWS = (
    PageRow("TSN", "TSN 1x1x3", None),
    PageRow("TSN", "TSN 1x1x3", "mmaction2"),
    PageRow("I3D", "I3D 32x2", None),
    PageRow("I3D", "I3D 32x2, fast", None),
    PageRow("I3D", "I3D 32x2", "mmaction2"),
    PageRow("TSM", "TSM 1x1x8", None),
    PageRow("TSM", "TSM 1x1x8", "mit_tsm"),
    PageRow("SlowFast", "SlowFast 4x16", None),
    PageRow("SlowFast", "SlowFast 4x16", "pyslowfast"),
    PageRow("SlowFast", "SlowFast 8x8", None),
    PageRow("SlowFast", "SlowFast 8x8", "pyslowfast"),
    PageRow("SlowOnly", "SlowOnly 4x16", None),
    PageRow("SlowOnly", "SlowOnly 4x16", "pyslowfast"),
    PageRow("SlowOnly", "SlowOnly 8x8", None),
    PageRow("SlowOnly", "SlowOnly 8x8", "pyslowfast"),
    PageRow("R(2+1)D", "R(2+1)D-34 32x2", None),
    PageRow("R(2+1)D", "R(2+1)D-34 8x8", None),
)
"""Rows of the first page in their order. Other frameworks of a setting follow the last of its rows."""
HEAD = ("Model", "Dataset", "Setting", "Framework", "Iter time (data time), s", "Memory, MiB", "ckpt & log")
NAMES = {"mmaction2": "MMAction2", "mit_tsm": "MIT TSM (HAN)", "pyslowfast": "PySlowFast"}
SETTINGS_OF_THE_FIRST_PAGE = frozenset(row.setting for row in ROWS)
# Reasons of the frameworks in results whose workers did not state them.
REASONS = {
    "mmaction2": "not measured from files",
    "pytorchvideo": "its transforms fail to import with current versions of torchvision",
}


def is_of_the_first_page(found: dict[str, Any]) -> bool:
    """Whether results from files contain rows of the first page."""
    return any(row["setting"] in SETTINGS_OF_THE_FIRST_PAGE and fed(row, OURS) for row in found["results"])


def first_page_form(found: dict[str, Any], log: str) -> str:
    """Return the table Model | Dataset | Setting | Framework | Iter time (data time) | Memory | ckpt & log.

    Args:
        found: content of a `benchmark.json` file.
        log: Markdown link to that file.
    """
    return markdown(HEAD, _lines(found, log))


def _lines(found: dict[str, Any], log: str) -> Iterator[tuple[str, ...]]:
    measured: dict[str, list[dict[str, Any]]] = {}
    for row in found["results"]:
        measured.setdefault(row["setting"], []).append(row)
    for number, listed in enumerate(ROWS):
        rows = measured.get(listed.setting, [])
        if listed.peer is None:
            own = rows[0] if rows else None
            yield _line(found, listed, own, OURS, log)
        else:
            yield from _peer_lines(found, listed, rows, log)
        if all(later.setting != listed.setting for later in ROWS[number + 1 :]):
            shown = {row.peer for row in ROWS if row.setting == listed.setting}
            for name in dict.fromkeys(row["peer"] for row in rows if row["peer"] not in shown):
                yield from _peer_lines(found, listed._replace(peer=name), rows, log)


def _peer_lines(
    found: dict[str, Any], listed: PageRow, rows: list[dict[str, Any]], log: str
) -> Iterator[tuple[str, ...]]:
    own = [row for row in rows if row["peer"] == listed.peer and is_measured(row, PEER)]
    if not own:
        yield _line(found, listed, None, PEER, log)
    for row in own:
        yield _line(found, listed, row, PEER, log)


def _line(
    found: dict[str, Any], listed: PageRow, row: dict[str, Any] | None, side: str, log: str
) -> tuple[str, ...]:
    """Return the cells of one framework; without a measurement, the reason stands in their place."""
    setting = find_setting(listed.setting)
    name = setting.build().name
    linked = f"[{name.removesuffix('_kinetics400_rgb')}](recipes.md#{name})"
    weights = ", ".join(f"`{weights}`" for weights in weights_for(name, listed.peer))
    links = [log] if row else []
    links += [f"[recipe](recipes.md#{name})"] if side == OURS else []
    last = "<br>".join(filter(None, (" · ".join(links), weights)))
    if row is None:
        label = NAMES.get(listed.peer or "", listed.peer or "mmaction-lite")
        reason = "not measured on this machine"
        return listed.model, "Kinetics-400", linked, label, f"– ({reason})", f"– ({reason})", last or "–"
    digits = ".3f" if found["options"]["device"] == "cpu" else ".4f"
    files = fed(row, side)
    source = next((FILES[source] for source in SOURCES if side in row.get(source, {})), None)
    label = framework(found, row, side)
    return (
        listed.model,
        f"Kinetics-400, {source}" if source else "Kinetics-400",
        linked,
        f"**{label}**" if side == OURS else label,
        f"{seconds(files):{digits}} ({seconds(files, 'data'):{digits}})" if files else f"– ({_reason(row)})",
        f"{row['memory_mib'][side]:.0f}" if side in row["memory_mib"] else "– (not measured)",
        last or "–",
    )


def _reason(row: dict[str, Any]) -> str:
    """Return why a framework has no iteration from files."""
    missing = row.get("missing", {})
    read = next((source for source in SOURCES if source in row), "video")
    return missing.get(read) or REASONS.get(row["peer"]) or row.get("error", "not measured from files")


def weights_for(recipe: str, peer: str | None) -> list[str]:
    """Return the catalogue names of the weights for Kinetics-400 that fit a recipe.

    Args:
        recipe: name of a recipe, `NETWORK_CLIPS_EPOCHS_DATASET_MODALITY`.
        peer: framework whose weights are wanted; None: those of all projects.
    """
    network, clips = re.match(r"(.+?)_(\d+x\d+x\d+)_", recipe).groups()  # pyright: ignore[reportOptionalMemberAccess]
    network, clips = network.removesuffix("_fast"), clips.removesuffix("x1")
    form = re.compile(rf"{re.escape(network)}_{re.escape(clips)}(x1)?_.*kinetics400")
    sources = {None: set(PROJECTS), "mit_tsm": {"mit"}}.get(peer, {peer})
    entries = list_weights(dataset="kinetics400")
    return [name for name in entries if form.match(name) and name.partition("@")[2] in sources]


def summary(found: dict[str, Any]) -> str:
    """Return one line per framework with the median ratios over its rows, the smallest and the largest."""
    by_framework: dict[str, list[dict[str, float]]] = {}
    for row in found["results"]:
        if is_measured(row, PEER):
            by_framework.setdefault(framework(found, row, PEER), []).append(part_ratios(row))
    lines = []
    for name, rows in by_framework.items():
        values = {what: [row[what] for row in rows if what in row] for row in rows for what in row}
        shown = [
            f"{what} {Ratio(statistics.median(each), min(each), max(each))}" for what, each in values.items()
        ]
        lines.append(f"* Beside {name} (rows: {len(rows)}): {', '.join(shown)}")
    return "\n".join(lines)
