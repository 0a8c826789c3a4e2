"""Fuse the scores of several models: the weighted mean of their probabilities, video by video."""

import os.path
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Literal

import numpy as np

from mmaction_lite.errors import UserError, printable
from mmaction_lite.tasks.metrics import readable_videos
from mmaction_lite.tasks.score_files import Scores

Match = Literal["path", "name"]

MOST_NAMED = 3  # videos in a message
MOST_STEPS = 10_000  # of the fit; a few hundred are usual
TOLERANCE = 1e-7  # change of the weights at which the fit ends


def align(tables: Sequence[Scores], match: Match = "path") -> list[Scores]:
    """Return score files with their videos in the order of the first file.

    Args:
        tables: score files of the same videos and classes.
        match: "path" compares the paths of the videos. "name" compares them without the folder that all
            videos of a file share and without suffix, such as `rgb/a/1.mp4` and the frame folder `flow/a/1`.

    Raises:
        UserError: the files differ in their videos, labels, classes or tasks.
    """
    first = tables[0]
    keys = _keys(first, match)
    found = [first]
    for other in tables[1:]:
        _check_classes(first, other)
        places = {key: row for row, key in enumerate(_keys(other, match))}
        if places.keys() != set(keys):
            raise UserError(_describe_difference(first, other, keys, list(places), match))
        order = np.array([places[key] for key in keys])
        logits = None if other.view_logits is None else other.view_logits[order]
        ordered = replace(
            other,
            paths=[other.paths[row] for row in order],
            labels=other.labels[order],
            scores=other.scores[order],
            view_logits=logits,
        )
        differing = (ordered.labels != first.labels).reshape(len(keys), -1).any(1)
        if differing.any():
            row = int(differing.argmax())
            raise UserError(
                f"{first.file} and {other.file}: {differing.sum()} of {len(keys)} videos have other labels, "
                f"such as {printable(first.paths[row], 200)}; expected the same labels. Test both on the "
                "same data"
            )
        found.append(ordered)
    return found


def _keys(table: Scores, match: Match) -> list[tuple[str, int]]:
    """Return what identifies each video: path or name, and the number of earlier videos with the same."""
    names = list(table.paths)
    if match == "name":
        # Parts of a video are named `path#t=1,2`.
        parts = [path.partition("#") for path in table.paths]
        folders = {os.path.dirname(path) for path, _, _ in parts}  # noqa: PTH120
        try:
            shared = os.path.commonpath(folders)
        except ValueError:  # absolute and relative paths, or several drives
            shared = ""
        names = [
            _without_suffix(os.path.relpath(path, shared) if shared else path) + mark + part
            for path, mark, part in parts
        ]
    # Rows of the same video are ordered by label, so that their order in the file does not matter.
    labels = table.labels.reshape(len(names), -1)
    seen: dict[str, int] = {}
    keys: list[tuple[str, int]] = [("", 0)] * len(names)
    is_repeated = len(set(names)) < len(names)
    order = sorted(range(len(names)), key=lambda n: labels[n].tolist()) if is_repeated else range(len(names))
    for row in order:
        keys[row] = names[row], seen.get(names[row], 0)
        seen[names[row]] = keys[row][1] + 1
    return keys


def _without_suffix(path: str) -> str:
    """Return a path without the suffix of a video; `.5` of a frame folder `v_1.5` is none."""
    pure = PurePath(path)
    has_suffix = any(character.isalpha() for character in pure.suffix)
    return (pure.with_suffix("") if has_suffix else pure).as_posix()


def _check_classes(first: Scores, other: Scores) -> None:
    """Check that two score files have the same task and classes.

    Raises:
        UserError: they do not.
    """
    if other.class_names != first.class_names:
        pairs = zip(first.class_names, other.class_names, strict=False)
        differing = next((pair for pair in pairs if pair[0] != pair[1]), None)
        shown = f", at first {differing[0]!r:.60} and {differing[1]!r:.60}" if differing else ""
        raise UserError(
            f"{first.file} and {other.file}: hold {len(first.class_names)} and {len(other.class_names)} "
            f"classes{shown}; expected the same classes in the same order. Train both on the same data"
        )
    if other.task != first.task:
        raise UserError(
            f"{first.file} and {other.file}: are of the tasks {first.task} and {other.task}; expected the "
            "same task"
        )


def _describe_difference(
    first: Scores, other: Scores, keys: list[tuple[str, int]], others: list[tuple[str, int]], match: Match
) -> str:
    """Return the error message about files of different videos."""
    parts = []
    for table, own, rest in ((first, keys, set(others)), (other, others, set(keys))):
        missing = [key[0] for key in own if key not in rest]
        if missing:
            shown = ", ".join(printable(name, 100) for name in missing[:MOST_NAMED])
            more = ", …" if len(missing) > MOST_NAMED else ""
            parts.append(f"{len(missing)} are in {table.file} only ({shown}{more})")
    advice = "Test both on the same data"
    if match == "path" and set(_keys(first, "name")) == set(_keys(other, "name")):
        advice = "The videos have the same names in other folders: pass --match name"
    return (
        f"{first.file} and {other.file}: hold different videos: {'; '.join(parts)}; expected the same "
        f"videos. {advice}"
    )


def check_weights(weights: Sequence[float], count: int) -> None:
    """Check the weights of `count` score files.

    Raises:
        UserError: there is another number of weights, one is negative or not finite, or all are zero.
    """
    values = np.array(weights, float)
    if len(values) != count or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        shown = ",".join(f"{value:g}" for value in weights)
        raise UserError(
            f"weights: {shown} for {count} score files; expected {count} numbers, at least 0 and not all 0, "
            f"such as --weights {','.join(['1', '1.5', *['1'] * count][:count])}"
        )


def fuse(tables: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """Return the weighted mean of the probabilities of aligned score files.

    A video that one of the files with a weight above 0 could not read is unreadable in the result and counts
    as incorrect.

    Args:
        tables: score files with the same videos in the same order; see `align`.
        weights: one for each file; their sum does not matter.

    Raises:
        UserError: the weights do not fit; see `check_weights`.
    """
    check_weights(weights, len(tables))
    used = [(table, weight) for table, weight in zip(tables, weights, strict=True) if weight]
    if len(used) == 1:
        return used[0][0]
    total = float(sum(weight for _, weight in used))
    scores = np.zeros(tables[0].scores.shape)
    for table, weight in used:
        scores += weight / total * table.scores
    lines = [f"{weight:.4g} × {table.file.name} ({table.protocol})" for table, weight in used]
    files = " + ".join(f"{weight:.4g} × {table.file.name}" for table, weight in used)
    return replace(
        tables[0],
        file=Path(files),
        scores=scores.astype(np.float32),
        protocol=f"probabilities fused: {' + '.join(lines)}",
        weights=None,
        views=None,
        view_logits=None,
    )


def fit_weights(tables: Sequence[Scores]) -> tuple[float, ...]:
    """Fit the weights of `fuse` to aligned score files: those with the lowest log loss; they sum to 1.

    The log loss of a weighted mean of probabilities is convex in the weights, so that the result is the
    global optimum. The expectation-maximization algorithm of a mixture with fixed components finds it
    (Dempster, Laird and Rubin, 1977, section 4.3). Videos that a file could not read are left out.

    Args:
        tables: score files of the validation split, one for each model.

    Raises:
        UserError: no video is readable in all files.
    """
    readable = np.logical_and.reduce([readable_videos(table.scores) for table in tables])
    if not readable.any():
        names = " and ".join(str(table.file) for table in tables)
        raise UserError(f"{names}: no video is readable in all files, so no weights can be fitted")
    given = np.stack(
        [
            table.task.likelihoods(table.scores[readable].astype(np.float64), table.labels[readable])
            for table in tables
        ]
    )
    given = np.maximum(given, 1e-12)
    weights = np.full(len(tables), 1 / len(tables))
    for _ in range(MOST_STEPS):
        shares = weights[:, None] * given
        new = (shares / shares.sum(0)).mean(1)
        change = np.abs(new - weights).max()
        weights = new
        if change < TOLERANCE:
            break
    return tuple(float(weight) for weight in weights)
