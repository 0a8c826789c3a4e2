"""Changes between two results of the benchmark, or between two commits in one result, beyond their spread."""

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmaction_lite.benchmark.comparison import OURS, PEER
from mmaction_lite.benchmark.run import read_result
from mmaction_lite.benchmark.tables import framework, ratios_by_round
from mmaction_lite.errors import reading

LEAST_CHANGE = 0.03
"""Smaller relative changes are not reported: with few rounds, their ranges are apart by chance."""
PHASES = {"train": "training step", "infer": "inference", "video": "iteration", "frames": "iteration"}


class Change(NamedTuple):
    """A cell whose ranges over the rounds do not overlap.

    Args:
        setting: row of the benchmark.
        framework: framework of the cell; for a ratio, the other framework.
        cell: name of the cell.
        old: median, smallest and largest value before.
        new: the same after.
        is_worse: whether this package became slower or larger.
    """

    setting: str
    framework: str
    cell: str
    old: tuple[float, float, float]
    new: tuple[float, float, float]
    is_worse: bool

    @property
    def relative(self) -> float:
        """Median after, relative to the median before."""
        return self.new[0] / self.old[0]

    def __str__(self) -> str:
        before, after = (f"{x[0]:.3g} ({x[1]:.3g}–{x[2]:.3g})" for x in (self.old, self.new))
        return (
            f"{self.setting}, {self.framework}: {self.cell} {before} → {after}, {self.relative - 1:+.0%}"
            f"{', worse' if self.is_worse else ''}"
        )


def read_comparable(file: Path) -> dict[str, Any]:
    """Read a `benchmark.json` file and check that all its cells are positive numbers.

    Raises:
        UserError: the file is no such file.
    """
    found = read_result(file)
    with reading(file, advice="expected a file benchmark.json of `mmaction-lite benchmark`"):
        is_same_machine(found, found)
        list(_cells(found))
    return found


def is_same_machine(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two results were measured on the same kind of machine, with the same options."""
    names = ("device", "processor", "cores", "torch")
    options = ("batch_size", "precision", "compile", "devices", "threads")
    return all(old["environment"].get(name) == new["environment"].get(name) for name in names) and all(
        old["options"].get(name) == new["options"].get(name) for name in options
    )


def compare_results(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[Change], int]:
    """Return the cells that moved beyond their spread, and the number of cells that both results have.

    A cell moved if its ranges over the rounds do not overlap and its medians differ by more than
    `LEAST_CHANGE`; memory has no rounds. Times are compared on the same kind of machine only, ratios always.

    Args:
        old: content of a `benchmark.json` file.
        new: content of another one.
    """
    has_times = is_same_machine(old, new)
    before = {key: value for key, value in _cells(old) if has_times or "ratio" in key[2]}
    after = dict(_cells(new))
    shared = [key for key in before if key in after]
    changes = []
    for key in shared:
        was, now = before[key], after[key]
        is_apart = now[1] > was[2] or now[2] < was[1]
        if is_apart and abs(now[0] / was[0] - 1) > LEAST_CHANGE:
            is_ours = "ratio" in key[2] or key[1] == "mmaction-lite"
            changes.append(Change(*key, was, now, is_ours and now[0] > was[0]))
    return changes, len(shared)


def changes_since(found: dict[str, Any]) -> list[Change]:
    """Return the ratios to older commits of this package, in one result, whose ranges exclude 1."""
    ones = (1.0, 1.0, 1.0)
    changes = []
    for row in found["results"]:
        if not (row["peer"] or "").startswith("commit "):
            continue
        for what, value in _ratio_cells(row):
            is_apart = value[1] > 1 or value[2] < 1
            if is_apart and abs(value[0] - 1) > LEAST_CHANGE:
                name = framework(found, row, PEER)
                changes.append(Change(row["setting"], name, what, ones, value, value[0] > 1))
    return changes


def _cells(found: dict[str, Any]) -> Iterator[tuple[tuple[str, str, str], tuple[float, float, float]]]:
    """Yield ((setting, framework, cell), (median, smallest, largest)) of all cells."""
    seen = set()
    for row in found["results"]:
        name = row["setting"]
        precision = "" if row.get("peer_precision") in (None, "float32") else f", {row['peer_precision']}"
        for side, who in ((OURS, "mmaction-lite"), (PEER, f"{row['peer']}{precision}")):
            if side not in row["train"] or (name, who) in seen:
                continue
            seen.add((name, who))
            for phase, what in PHASES.items():
                if side in row.get(phase, {}):
                    yield (name, who, f"{what}, s"), _range([_mean(turn) for turn in row[phase][side]])
            if side in row["memory_mib"]:
                yield (name, who, "memory, MiB"), _range([row["memory_mib"][side]])
        for what, value in _ratio_cells(row):
            yield (name, f"{row['peer']}{precision}", what), value


def _ratio_cells(row: dict[str, Any]) -> Iterator[tuple[str, tuple[float, float, float]]]:
    for phase, what in PHASES.items():
        if PEER in row.get(phase, {}) and OURS in row[phase]:
            yield f"ratio of the {what}", _range(ratios_by_round(row[phase]))
    memory = row["memory_mib"]
    if PEER in memory:
        yield "ratio of the memory", _range([memory[OURS] / memory[PEER]])


def _mean(turn: list[dict[str, float]]) -> float:
    return statistics.fmean(step["iteration"] for step in turn)


def _range(values: list[float]) -> tuple[float, float, float]:
    """Return median, smallest and largest value.

    Raises:
        ValueError: a value is not a positive number, which only a damaged file has.
    """
    if wrong := [value for value in values if not 0 < value < math.inf]:
        raise ValueError(f"a measurement is {wrong[0]}, expected a positive number")
    return statistics.median(values), min(values), max(values)
