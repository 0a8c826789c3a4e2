"""Looking at a data set before training on it."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmaction_lite.data.annotations import Split, read_split
from mmaction_lite.data.samples import Samples
from mmaction_lite.data.sources import open_sample
from mmaction_lite.data.transforms import Size
from mmaction_lite.device import available_cores
from mmaction_lite.errors import MissingSplitError, VideoError

Track = Callable[[Iterable["Checked"], int, str], Iterable["Checked"]]


class Checked(NamedTuple):
    """One video: its length in frames, (height, width) and frame rate, or why it cannot be read."""

    length: int = 0
    size: Size = (0, 0)
    fps: float = 0.0
    fault: str = ""


def validate(data: Path, track: Track) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Open every video of a data set, decode its first, middle and last frame.

    Returns:
        facts of the splits that are there, by name, and one line per video that cannot be read.

    Raises:
        UserError: the annotations themselves are wrong.
    """
    train = read_split(data, "train")
    splits: dict[str, Samples] = {"train": train}
    others: tuple[Split, ...] = ("val", "test")
    for split in others if data.is_dir() else ():
        with contextlib.suppress(MissingSplitError):
            samples = read_split(data, split, train.classes)
            if all(samples.source != known.source for known in splits.values()):
                splits[split] = samples
    facts, faults = {}, []
    for name, samples in splits.items():
        with ThreadPoolExecutor(available_cores()) as threads:
            results = threads.map(lambda i, samples=samples: _check(samples, i), range(len(samples)))
            checked = list(track(results, len(samples), f"checking {samples.source}"))
        facts[name] = _facts(samples, [video for video in checked if not video.fault])
        faults += [video.fault for video in checked if video.fault]
    return facts, faults


def describe(facts: dict[str, Any]) -> str:
    """The facts of one split in a line."""
    sides = [f"{name} {_most_common(facts[name])}" for name in ("sizes", "fps") if facts[name]]
    counts = "{min} to {max}".format(**facts["videos_per_class"])
    frames = "{min} to {max} frames (median {median:g})".format(**facts["frames"])
    return (
        f"{facts['videos']} videos of {facts['source']}, {facts['unreadable']} unreadable; "
        f"{facts['classes']} classes of {counts} videos; {', '.join([frames, *sides])}"
    )


def _check(samples: Samples, sample: int) -> Checked:
    try:
        with open_sample(samples, sample) as source:
            last = len(source) - 1
            source.frames([0, last // 2, last])
            return Checked(len(source), source.size, source.fps)
    except VideoError as error:
        return Checked(fault=str(error))


def _facts(samples: Samples, readable: list[Checked]) -> dict[str, Any]:
    counts = samples.counts()
    lengths = [video.length for video in readable] or [0]
    return {
        "source": samples.source,
        "videos": len(samples),
        "unreadable": len(samples) - len(readable),
        "classes": len(counts),
        "videos_per_class": {"min": int(counts.min()), "max": int(counts.max())},
        "frames": {"min": min(lengths), "median": float(np.median(lengths)), "max": max(lengths)},
        "sizes": Counter(f"{video.size[1]}x{video.size[0]}" for video in readable),
        # A folder of frames does not know its rate.
        "fps": Counter(f"{video.fps:g}" for video in readable if not math.isnan(video.fps)),
    }


def _most_common(counted: Counter[str]) -> str:
    shown = [f"{value} ({count})" for value, count in counted.most_common(3)]
    return " ".join(shown) + (f" and {len(counted) - 3} more" if len(counted) > 3 else "")
