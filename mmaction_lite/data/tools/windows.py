"""Cut training windows from long videos with annotated actions, to train a network for `timeline`.

`timeline` classifies windows of a fixed length. An action fills most of them in part only, or not at all. A
network that was trained on whole actions has not seen such windows.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmaction_lite.data.annotations.classes import CLASSES_FILE, write_classes
from mmaction_lite.data.annotations.samples import Samples, absolute
from mmaction_lite.data.annotations.tables import write_table
from mmaction_lite.data.sources.sequential import frame_times
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.data.tools.validate import read_splits
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.files import FolderLock, check_output_folder, check_unchanged, rewriting, writing
from mmaction_lite.settings import NonNegativeFloat, PositiveFloat, Probability, check_fields

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]


@dataclass(frozen=True, kw_only=True)
class TrainingWindows:
    """Windows to cut from long videos.

    Args:
        seconds: length of a window.
        stride: distance between the starts of two windows of a video, in seconds.
        margin: windows whose center is closer than this to the start or end of an action are left out, in
            seconds, because their class is uncertain.
        background: name of the class of windows without an action at their center.
        background_share: largest share of these windows in all windows of a split. 0: there is no such class.

    Raises:
        UserError: a value is out of range.
    """

    seconds: PositiveFloat = 2.5
    stride: PositiveFloat = 1.0
    margin: NonNegativeFloat = 0.1
    background: str = "background"
    background_share: Probability = 1 / 3

    def __post_init__(self):
        check_fields(self)
        if not self.background.strip():
            raise UserError("TrainingWindows: background is empty; expected the name of a class")


class _Window(NamedTuple):
    """A window: path of the video, start and end in seconds, class indices (none: background)."""

    path: str
    start: float
    end: float
    labels: tuple[int, ...]


def write_windows(
    data: Path, out: Path, windows: TrainingWindows, track: Track
) -> tuple[dict[str, Samples], list[str]]:
    """Write a data set of windows: a table for each split, whose rows are parts of the videos of `data`.

    The class of a window is that of the action at its center, or the background class. If a clip may have any
    number of classes, the background is the absence of a class.

    Args:
        data: a data set whose samples are actions in long videos, with start and end.
        out: folder of the new data set.
        windows: the windows.
        track: wraps an iterable of videos to show progress: (iterable, total, title).

    Returns:
        The windows of each split, and one line for each video that cannot be read.

    Raises:
        UserError: `data` is invalid or has no times; no video of a split can be read, or no window is left;
            or `out` contains other files, or lists that were changed since an earlier call wrote them.
    """
    check_output_folder(out, [data])
    splits = read_splits(data)
    names = [*(f"{name}.csv" for name in splits), CLASSES_FILE]
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    found, faults = {}, []
    with FolderLock(out):
        check_unchanged(out, names)
        for name, actions in splits.items():
            found[name] = cut_windows(actions, windows, track, faults)
        with rewriting(out, names):
            for name, samples in found.items():
                numbers = range(len(samples))
                write_table(out / f"{name}.csv", samples, numbers, [samples.paths[i] for i in numbers])
            write_classes(out / CLASSES_FILE, found["train"].classes)
    return found, faults


def cut_windows(actions: Samples, windows: TrainingWindows, track: Track, faults: list[str]) -> Samples:
    """Return the windows of the videos whose actions are annotated.

    Windows whose center lies in actions of different classes are left out, unless a clip may have any number
    of classes.

    Args:
        actions: the actions of each video.
        windows: the windows.
        track: see `write_windows`.
        faults: receives one line for each video that cannot be read.

    Raises:
        UserError: the actions have no start and end, no video can be read, or no window is left.
    """
    if actions.segments is None:
        raise UserError(
            f"{actions.source}: does not say when the actions happen; expected the columns start_seconds and "
            "end_seconds"
        )
    by_video: dict[Path, list[int]] = {}
    for sample in range(len(actions)):
        by_video.setdefault(actions.path(sample), []).append(sample)
    found: list[_Window] = []
    num_known = len(faults)
    for path, samples in track(by_video.items(), len(by_video), f"cutting windows of {actions.source}"):
        try:
            found += _windows_of(path, actions, samples, windows)
        except VideoError as error:
            faults.append(str(error))
    if len(faults) - num_known == len(by_video):
        raise UserError(
            f"{actions.source}: none of {len(by_video)} videos can be read; the first: {faults[num_known]}"
        )
    found = _balanced(found, windows.background_share)
    if not any(window.labels for window in found):
        raise UserError(
            f"{actions.source}: no window has an action at its center; expected a smaller stride than "
            f"{windows.stride:g} s, or longer actions"
        )
    return actions.parts(
        [window.path for window in found],
        np.array([(window.start, window.end) for window in found]),
        [window.labels for window in found],
        windows.background if windows.background_share else None,
    )


def _windows_of(
    path: Path, actions: Samples, samples: list[int], windows: TrainingWindows
) -> Iterator[_Window]:
    """Yield the windows of a video, in order."""
    with open_source(path) as source:
        times = frame_times(source)
        duration = float(times[-1]) + (1 / source.fps if source.fps > 0 else 0.0)
    assert actions.segments is not None
    bounds = actions.segments[samples]
    if actions.segments_in_frames:
        bounds = np.append(times, duration)[np.minimum(bounds, len(times)).astype(int)]
    count = max(1, math.floor((duration - windows.seconds) / windows.stride + 1e-6) + 1)
    for start in (np.arange(count) * windows.stride).tolist():
        end = min(start + windows.seconds, duration)
        center = (start + end) / 2
        if np.abs(bounds - center).min() < windows.margin:
            continue
        here = np.flatnonzero((bounds[:, 0] <= center) & (center < bounds[:, 1]))
        labels = actions.common_labels([samples[i] for i in here.tolist()])
        if labels is not None:
            yield _Window(absolute(path), start, end, labels)


def _balanced(found: list[_Window], most: float) -> list[_Window]:
    """Leave out background windows, evenly spaced, until their share is at most `most`."""
    empty = [number for number, window in enumerate(found) if not window.labels]
    allowed = len(empty) if most == 1 else int((len(found) - len(empty)) * most / (1 - most) + 1e-9)
    if len(empty) <= allowed:
        return found
    kept = {empty[place] for place in np.linspace(0, len(empty) - 1, allowed).round().astype(int).tolist()}
    return [window for number, window in enumerate(found) if window.labels or number in kept]
