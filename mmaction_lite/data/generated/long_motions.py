"""Generated long videos with known actions: clips of `motions` with still scenes between them.

Every clip is encoded once, and its packets are written again and again. A video of ten hours takes seconds.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from mmaction_lite.data.generated import motions
from mmaction_lite.errors import UserError

BACKGROUND = "background"
"""Class of the windows that are less than half filled by an action."""
MARGIN = 2  # frames by which the share of an action in a training window differs from one half
DIFFERENT_CLIPS = 80  # actions; and a quarter as many still scenes
STILL_FRAMES = (50, 75, 100, 150)
FIRST_STILLS = {"test": 0, "val": 100, "train": 200}  # numbers of the still scenes of each split


class Action(NamedTuple):
    """An action in a generated video, in seconds."""

    label: str
    start: float
    end: float


class _Packet(NamedTuple):
    data: bytes
    pts: int
    dts: int
    is_keyframe: bool


class _Part(NamedTuple):
    """An encoded clip: frames, packets with times in frames after its start, and its class, if any."""

    length: int
    packets: list[_Packet]
    label: str | None


def generate_long(path: Path, seconds: float, seed: int = 0, split: str = "test") -> list[Action]:
    """Write a video of H.264 in MP4 or Matroska, 128x96 pixels, 25 fps.

    The actions are clips of a split of `motions`, 2.56 s long, drawn at random. A still scene under the same
    moving camera, 2 to 6 s long, precedes each of them and ends the video. Different splits have different
    still scenes.

    Args:
        path: the file to write.
        seconds: the video ends with the first still scene that reaches this time.
        seed: of the choice and the order of the clips.
        split: of the actions: "train", "val" or "test".

    Returns:
        The actions, in order.

    Raises:
        UserError: the file exists.
    """
    if path.exists():
        raise UserError(f"{path}: exists; expected a new file")
    rng = np.random.default_rng(seed)
    numbers = list(motions.SPLITS[split])
    first_still = FIRST_STILLS[split]
    count = min(DIFFERENT_CLIPS, max(1, int(seconds / 6) + 1))
    actions = {n: _encode(motions.render(n), motions.CLASSES[n % 10]) for n in _choose(rng, numbers, count)}
    stills = [
        _encode(still_scene(first_still + number, STILL_FRAMES[number % len(STILL_FRAMES)]), None)
        for number in range(max(2, count // 4))
    ]
    found, place = [], 0
    with av.open(f"file:{path}", "w") as container:
        stream = _add_stream(container)
        container.start_encoding()
        for part in _order(rng, stills, list(actions.values()), round(seconds * motions.FPS)):
            for packet in part.packets:
                container.mux(_copy(packet, place, stream))
            if part.label:
                found.append(Action(part.label, place / motions.FPS, (place + part.length) / motions.FPS))
            place += part.length
    return found


def still_scene(number: int, frames: int) -> np.ndarray:
    """Draw a background of `motions` without an object, under a moving camera, uint8 (frames, 96, 128, 3)."""
    rng = np.random.default_rng([number, 1])
    canvas = motions._background(rng)
    walks = [
        np.concatenate([motions._camera(rng) for _ in range(-(-frames // motions.FRAMES))]) for _ in "xy"
    ]
    height, width = motions.HEIGHT, motions.WIDTH
    return np.stack([canvas[y : y + height, x : x + width] for x, y in np.array(walks)[:, :frames].T])


def window_clip(number: int, is_action: bool) -> np.ndarray:
    """Draw what a window of 2.56 s sees at a random place of a long video, uint8 (64, 96, 128, 3).

    Args:
        number: of the clip of `motions` that is the action.
        is_action: whether the action fills more than half of the window.
    """
    rng = np.random.default_rng([number, 2, is_action])
    half, length = motions.FRAMES // 2, motions.FRAMES
    low, high = (0, half - MARGIN) if is_action else (half + MARGIN, length)
    offset = length + int(rng.integers(low, high + 1)) * (1 if rng.integers(2) else -1)
    before, after = (still_scene(1000 + 2 * number + i, length) for i in range(2))
    return np.concatenate([before, motions.render(number), after])[offset : offset + length]


def generate_windows(out: Path, splits: Mapping[str, range] = motions.SPLITS) -> None:
    """Write a data set of windows as they occur in the videos of `generate_long`, in class folders.

    Each clip of `motions` gives a window of its class, and every second one gives a window of the class
    `background`. A model trained on whole clips only does not know windows that an action fills in part.

    Args:
        out: new folder.
        splits: clip numbers of each split.
    """
    for split, numbers in splits.items():
        for number in numbers:
            for label in (motions.CLASSES[number % 10], BACKGROUND)[: 2 - number // 10 % 2]:
                path = out / split / label / f"{number:06d}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                motions._write_video(path, window_clip(number, label != BACKGROUND))


def _choose(rng: np.random.Generator, numbers: list[int], count: int) -> list[int]:
    return rng.choice(numbers, min(count, len(numbers)), replace=False).tolist()


def _order(
    rng: np.random.Generator, stills: list[_Part], actions: list[_Part], least: int
) -> Iterator[_Part]:
    """Yield still scenes and actions in turn until the video has `least` frames."""
    place = 0
    while True:
        still = stills[rng.integers(len(stills))]
        yield still
        place += still.length
        if place >= least:
            return
        action = actions[rng.integers(len(actions))]
        yield action
        place += action.length


def _add_stream(container: Any) -> Any:
    options = {"crf": "26", "g": "64", "preset": "veryfast"}
    stream = container.add_stream(
        "libx264", motions.FPS, options, width=motions.WIDTH, height=motions.HEIGHT, pix_fmt="yuv420p"
    )
    stream.thread_count = 1
    return stream


def _encode(frames: np.ndarray, label: str | None) -> _Part:
    """Encode a clip by itself, so that its packets can stand between those of any other clip."""
    import io

    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = _add_stream(container)
        packets = [p for f in frames for p in stream.encode(av.VideoFrame.from_ndarray(f, "rgb24"))]
        packets += stream.encode()
    first = min(packet.pts for packet in packets)
    step = (max(packet.pts for packet in packets) - first) // max(1, len(frames) - 1)
    kept = [
        _Packet(bytes(p), (p.pts - first) // step, (p.dts - first) // step, bool(p.is_keyframe))
        for p in packets
    ]
    return _Part(len(frames), kept, label)


def _copy(source: _Packet, place: int, stream: Any) -> av.Packet:
    packet = av.Packet(source.data)
    packet.stream = stream
    packet.time_base = 1 / stream.average_rate if stream.average_rate else stream.time_base
    packet.pts, packet.dts = source.pts + place, source.dts + place
    packet.is_keyframe = source.is_keyframe
    return packet
