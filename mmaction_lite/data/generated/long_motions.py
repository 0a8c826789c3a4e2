"""Generated long videos with known actions: clips of `motions` with still scenes between them.

Every clip is encoded once, and its packets are written again and again. A video of ten hours takes seconds.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from mmaction_lite.data.annotations.classes import CLASSES_FILE, write_classes
from mmaction_lite.data.annotations.tables import format_rows
from mmaction_lite.data.generated import motions
from mmaction_lite.errors import UserError
from mmaction_lite.files import FolderLock, write_atomically, writing

DIFFERENT_CLIPS = 80  # actions; and a quarter as many still scenes
STILL_FRAMES = (50, 75, 100, 150)
FIRST_STILLS = {"test": 0, "val": 100, "train": 200}  # numbers of the still scenes of each split
SECONDS = {"train": (800.0,) * 4, "val": (300.0,), "test": (600.0,)}  # of the videos of `generate_long_set`
COLUMNS = ("label", "start_seconds", "end_seconds")
FORM = '{"form": "long"}\n'  # content of the file that identifies a data set of long videos


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


def generate_long_set(
    out: Path,
    *,
    seconds: Mapping[str, Sequence[float]] = SECONDS,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a data set of long videos, and a table of the actions of each split, such as `train.csv`.

    Every clip of a split is in one of its videos, if it fits. The videos of a split with a table are complete
    and are kept.

    Args:
        out: a new or empty folder, or one from an earlier call.
        seconds: lengths of the videos of each split.
        workers: number of processes that draw clips; see `motions.generate`.
        progress: called as `progress(done, total)` in splits.

    Raises:
        UserError: the folder contains other files, or a file cannot be written.
    """
    motions.claim(out, FORM)
    with FolderLock(out):
        if not (out / CLASSES_FILE).exists():
            write_classes(out / CLASSES_FILE, motions.CLASSES)
        for done, (split, lengths) in enumerate(seconds.items()):
            progress(done, len(seconds))
            table = out / f"{split}.csv"
            if table.exists():
                continue
            rows = []
            clips = np.array_split(motions.SPLITS[split], len(lengths))
            for number, length in enumerate(lengths):
                video = out / f"{split}-{number}.mp4"
                with writing(video):
                    video.unlink(missing_ok=True)  # incomplete
                    actions = generate_long(
                        video, length, number, split, clips=clips[number].tolist(), workers=workers
                    )
                rows += [(video.name, a.label, f"{a.start:.2f}", f"{a.end:.2f}") for a in actions]
            content = format_rows(table, rows, COLUMNS)
            write_atomically(table, lambda file, content=content: file.write(content))
        shutil.rmtree(out / motions.PARTIAL)
        progress(len(seconds), len(seconds))


def generate_long(
    path: Path,
    seconds: float,
    seed: int = 0,
    split: str = "test",
    *,
    clips: Sequence[int] | None = None,
    workers: int | None = 0,
) -> list[Action]:
    """Write a video of H.264 in MP4 or Matroska, 128x96 pixels, 25 fps.

    The actions are clips of a split of `motions`, 2.56 s long, in random order. Each occurs once before one
    occurs again. A still scene under the same moving camera, 2 to 6 s long, precedes each of them and ends
    the video. Different splits have different still scenes.

    Args:
        path: the file to write.
        seconds: the video ends with the first still scene that reaches this time.
        seed: of the choice and the order of the clips.
        split: of the actions: "train", "val" or "test".
        clips: clip numbers of the actions; None: 80 of the split.
        workers: number of processes that draw and encode the clips; None: one per core, 0: this process.

    Returns:
        The actions, in order.

    Raises:
        UserError: the file exists.
    """
    if path.exists():
        raise UserError(f"{path}: exists; expected a new file")
    rng = np.random.default_rng(seed)
    numbers = list(motions.SPLITS[split] if clips is None else clips)
    first_still = FIRST_STILLS[split] + (min(numbers) - motions.SPLITS[split][0]) // 4
    most = DIFFERENT_CLIPS if clips is None else len(clips)
    count = min(most, max(1, int(seconds / 6) + 1))
    chosen = _choose(rng, numbers, count)
    scenes = range(first_still, first_still + max(2, count // 4))
    jobs = [*((number, True) for number in chosen), *((number, False) for number in scenes)]
    parts = list(motions.map_processes(_encode_job, jobs, workers))
    actions, stills = parts[: len(chosen)], parts[len(chosen) :]
    found, place = [], 0
    with av.open(f"file:{path}", "w") as container:
        stream = _add_stream(container)
        container.start_encoding()
        for part in _order(rng, stills, actions, round(seconds * motions.FPS)):
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


def _choose(rng: np.random.Generator, numbers: list[int], count: int) -> list[int]:
    return rng.choice(numbers, min(count, len(numbers)), replace=False).tolist()


def _order(
    rng: np.random.Generator, stills: list[_Part], actions: list[_Part], least: int
) -> Iterator[_Part]:
    """Yield still scenes and actions in turn until the video has `least` frames.

    Every action occurs once before one occurs again.
    """
    place = 0
    waiting: list[int] = []
    while True:
        still = stills[rng.integers(len(stills))]
        yield still
        place += still.length
        if place >= least:
            return
        waiting = waiting or rng.permutation(len(actions)).tolist()
        action = actions[waiting.pop()]
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


def _encode_job(job: tuple[int, bool]) -> _Part:
    """Draw and encode the clip of an action, or a still scene, with this number."""
    number, is_action = job
    if is_action:
        return _encode(motions.render(number), motions.CLASSES[number % 10])
    return _encode(still_scene(number, STILL_FRAMES[number % len(STILL_FRAMES)]), None)


def _copy(source: _Packet, place: int, stream: Any) -> av.Packet:
    packet = av.Packet(source.data)
    packet.stream = stream
    packet.time_base = 1 / stream.average_rate if stream.average_rate else stream.time_base
    packet.pts, packet.dts = source.pts + place, source.dts + place
    packet.is_keyframe = source.is_keyframe
    return packet
