"""The generated data set `motions`: ten actions that differ in the order of frames only.

The classes form five pairs. A clip of the second class of a pair is a clip of the first class in reverse
order. Single frames of both classes therefore have the same distribution, and a model that averages over
frames cannot exceed 50 % top-1 accuracy.
"""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import av
import numpy as np
from PIL import Image

from mmaction_lite.data.loading.lifetime import require_main_guard, start_fork_server, start_worker
from mmaction_lite.errors import UserError
from mmaction_lite.files import FolderLock, writing

J = TypeVar("J")
R = TypeVar("R")
CLASSES = (
    "move_left",
    "move_right",
    "move_up",
    "move_down",
    "rotate_counterclockwise",
    "rotate_clockwise",
    "shrink",
    "grow",
    "vanish",
    "appear",
)
SPLITS = {"train": range(500), "val": range(500, 600), "test": range(600, 800)}

FRAMES, HEIGHT, WIDTH = 64, 96, 128
FPS = 25
REACH = 10  # largest distance of the camera from its middle position, in pixels
DARKNESS = 70  # mean level of the background

MARK = "motions.json"  # file that identifies a motions data set and holds its form and contrast
RESUMABLE = "free space on the disk. Finished clips are kept, and the same command resumes"
PARTIAL = ".partial"  # directory of incomplete clips

Form = Literal["video", "frames"]


def render(number: int, contrast: float = 1.0) -> np.ndarray:
    """Draw clip `number`, whose class is `number % 10`.

    The number is the seed; it gives the same pixels on every machine.

    Args:
        number: 0 or greater.
        contrast: 1 draws objects at levels 170–255 on a background of 40–100. Smaller values move the levels
            of objects towards the mean of the background.

    Returns:
        uint8 (64, 96, 128, 3), RGB.
    """
    scene = _scene(number, contrast)
    frames = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for t, frame in enumerate(frames):
        left, top = scene.left[t], scene.top[t]
        frame[:] = scene.canvas[top : top + HEIGHT, left : left + WIDTH]
        at = scene.x[t], scene.y[t]
        _draw(frame, scene.shape, *at, scene.radius[t], scene.angle[t], scene.color, scene.opacity[t])
    return frames if number % 2 == 0 else frames[::-1]


def object_circles(number: int) -> np.ndarray:
    """Return a circle that encloses the object of clip `number` in every frame.

    Returns:
        float64 (64, 4): x, y and radius in pixels, and the opacity of the object, in the order of the frames.
    """
    scene = _scene(number)
    circles = np.stack([scene.x, scene.y, scene.radius, scene.opacity], 1)
    return circles if number % 2 == 0 else circles[::-1]


class _Scene(NamedTuple):
    """Canvas with distractors; object and camera in every frame of the first class of the pair."""

    canvas: np.ndarray
    shape: Callable[[np.ndarray, np.ndarray], np.ndarray]
    color: np.ndarray
    left: np.ndarray
    top: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    opacity: np.ndarray


def _scene(number: int, contrast: float = 1.0) -> _Scene:
    rng = np.random.default_rng(number)
    canvas = _background(rng)
    for _ in range(rng.integers(2)):  # a distractor that does not move
        center = rng.uniform(0, canvas.shape[1]), rng.uniform(0, canvas.shape[0])
        _draw(canvas, _shape(rng), *center, rng.uniform(6, 12), rng.uniform(0, 360), _color(rng, contrast))

    shape, color = _shape(rng), _color(rng, contrast)
    x, y, radius, angle, opacity = _motion(rng, pair=number % 10 // 2)
    left, top = _camera(rng), _camera(rng)
    # Coordinates are those of the scene: the object moves left in the frame if the camera moves right.
    return _Scene(canvas, shape, color, left, top, x + REACH - left, y + REACH - top, radius, angle, opacity)


def generate(
    out: str | Path,
    *,
    form: Form = "video",
    contrast: float = 1.0,
    splits: Mapping[str, range] = SPLITS,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the data set: class directories of clips, one annotation file per split, and the class names.

    `out/train/move_left/000120.mp4` is listed in `out/train.txt` as `train/move_left/000120.mp4 0`. In the
    form "frames", a clip is a directory of `00001.jpg` …, listed as `train/move_left/000120 64 0`. Every clip
    is complete or absent. Existing clips are kept, so that an interrupted run resumes.

    Args:
        out: a new or empty directory, or one from an earlier call with the same form and contrast.
        form: "video" for H.264 in MP4, "frames" for directories of JPEG frames.
        contrast: see `render`; in (0, 1].
        splits: clip numbers of each split; splits must not overlap.
        workers: number of processes; None for one per core, 0 to write in this process.
        progress: called as `progress(done, total)` in clips; the first call counts existing ones.

    Raises:
        UserError: the directory contains other files or changed lists, or cannot be written; or the contrast
            is out of range.
    """
    if not 0 < contrast <= 1:
        raise UserError(f"contrast {contrast}: expected a number above 0, up to 1")
    require_main_guard()
    out = Path(out)
    claim(out, json.dumps({"form": form, "contrast": float(contrast)}) + "\n")

    with FolderLock(out):
        clips: list[tuple[int, Path]] = []
        texts = {"classes.txt": "\n".join(CLASSES) + "\n"}
        for split, numbers in splits.items():
            names = {n: _clip_name(split, n, form) for n in numbers}
            fields = f" {FRAMES}" if form == "frames" else ""
            texts[f"{split}.txt"] = "".join(f"{names[n]}{fields} {n % 10}\n" for n in numbers)
            clips += [(n, out / names[n]) for n in numbers]
        for name, text in texts.items():
            if (out / name).exists() and (out / name).read_bytes() != text.encode():
                raise UserError(
                    f"{out / name}: was changed, so it is not overwritten; move it, or use a new folder"
                )
        for name, text in texts.items():
            with writing(out / name, RESUMABLE):
                _write_text(out / name, text)

        missing = [(number, path) for number, path in clips if not path.exists()]
        for folder in {path.parent for _, path in missing}:
            folder.mkdir(parents=True, exist_ok=True)
        write = partial(_write_clip, partial_folder=out / PARTIAL, form=form, contrast=contrast)
        done = len(clips) - len(missing)
        progress(done, len(clips))
        for _ in map_processes(write, missing, workers):
            done += 1
            progress(done, len(clips))
        shutil.rmtree(out / PARTIAL)


def claim(out: Path, mark: str) -> None:
    """Create `out`, or check that it is a data set with the same settings.

    Raises:
        UserError: it is not, or cannot be written.
    """
    if out.is_dir():
        names = {entry.name for entry in out.iterdir()} - {PARTIAL}
        if not names and (out / PARTIAL).is_dir():  # of an interrupted call, or of another program
            names = {entry.name for entry in (out / PARTIAL).iterdir()} - {MARK}
        if names and MARK not in names:
            raise UserError(
                f"{out}: is not empty and not a motions data set. Choose a new or empty directory"
            )
        if names and (found := (out / MARK).read_text(encoding="utf-8")) != mark:
            raise UserError(
                f"{out}: contains clips of {found.strip()}; expected {mark.strip()}. Choose a new directory"
            )
    try:
        (out / PARTIAL).mkdir(parents=True, exist_ok=True)
        _write_text(out / MARK, mark)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}). Choose another directory") from None


def _write_text(path: Path, text: str) -> None:
    """Write a file so that it is complete or absent."""
    draft = path.parent / PARTIAL / path.name
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _clip_name(split: str, number: int, form: Form) -> str:
    return f"{split}/{CLASSES[number % 10]}/{number:06d}" + (".mp4" if form == "video" else "")


def map_processes(function: Callable[[J], R], jobs: Sequence[J], workers: int | None) -> Iterator[R]:
    """Map a function over processes, and yield the results in order.

    Args:
        function: a picklable function.
        jobs: its arguments.
        workers: number of processes; None: one per core, 0: none.

    Raises:
        UserError: a process died.
    """
    if workers is None:
        workers = os.cpu_count() or 1
    if not jobs or workers == 0:
        yield from map(function, jobs)
        return
    start = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    start_fork_server([])
    # Only this process handles Ctrl-C; the worker processes complete their clips.
    with ProcessPoolExecutor(workers, multiprocessing.get_context(start), start_worker) as pool:
        try:
            yield from pool.map(function, jobs, chunksize=4)
        except BrokenProcessPool:
            raise UserError(
                "a process that writes clips died; check the available memory. Finished clips are kept, and "
                "the same command resumes"
            ) from None


def _write_clip(clip: tuple[int, Path], partial_folder: Path, form: Form, contrast: float) -> None:
    number, path = clip
    draft = partial_folder / path.name
    write = write_video if form == "video" else _write_frames
    with writing(path, RESUMABLE):
        write(draft, render(number, contrast))
        draft.replace(path)


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write frames, uint8 (T, HEIGHT, WIDTH, 3), as H.264 in MP4."""
    # A keyframe every 16 frames with B-frames in between: even short clips exercise frame-accurate seeking.
    options = {"crf": "26", "g": "16", "preset": "veryfast"}
    with av.open(f"file:{path}", "w", format="mp4") as container:
        stream = container.add_stream("libx264", FPS, options, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def _write_frames(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"{number:05d}.jpg", quality=95)


def _motion(rng: np.random.Generator, pair: int) -> tuple[np.ndarray, ...]:
    """Return x, y and radius in pixels, angle in degrees, and opacity of the object, each (64,).

    They are those of the first class of the pair.
    """
    start, stop = rng.uniform(0, 12), FRAMES - 1 - rng.uniform(0, 12)
    time = np.clip((np.arange(FRAMES) - start) / (stop - start), 0, 1)
    easing = rng.uniform(-0.5, 0.5)  # above 0, the motion slows down; below 0, it speeds up
    progress = time + easing * time * (1 - time)

    radius = rng.uniform(16, 22)
    dx = dy = turn = arm = 0.0
    size = opacity = np.ones(FRAMES)
    match pair:
        case 0:
            dx = -rng.uniform(45, 70)
        case 1:
            dy = -rng.uniform(28, 40)
        case 2:
            turn, arm = -rng.uniform(110, 150), 0.7 * radius  # around one end, like a windscreen wiper
        case 3:
            size = 1.4 - rng.uniform(0.7, 1.0) * progress
        case 4:
            # Fast, and near the middle of the clip: slow fading would resemble growth.
            opacity = 1 - np.clip((np.arange(FRAMES) - rng.uniform(12, 36)) / rng.uniform(8, 16), 0, 1)
    # Objects are roughly upright, also halfway through a rotation: a tip that moves right means clockwise.
    angle = rng.uniform(-110, -70) + turn * (progress - 0.5)
    margin = radius + arm + 6  # to the edge of the frame, so that a moving camera crops little
    x = rng.uniform(margin - dx, WIDTH - margin) + dx * progress + arm * np.cos(np.radians(angle))
    y = rng.uniform(margin - dy, HEIGHT - margin) + dy * progress + arm * np.sin(np.radians(angle))
    return x, y, radius * size, angle, opacity


def _camera(rng: np.random.Generator) -> np.ndarray:
    """Return a random walk in [0, 2 * REACH], reflected at both ends, as integers (64,)."""
    walk = rng.integers(4 * REACH) + np.cumsum(rng.integers(-1, 2, FRAMES))
    return abs(walk % (4 * REACH) - 2 * REACH)


def _background(rng: np.random.Generator) -> np.ndarray:
    """Return three octaves of smooth noise at levels 40–100 with margins, uint8 (116, 148, 3)."""
    height, width = HEIGHT + 2 * REACH, WIDTH + 2 * REACH
    noise = np.zeros((3, height, width), np.int64)
    for cell, weight in ((32, 4), (16, 2), (8, 1)):
        rows, columns = _spread(height, cell), _spread(width, cell)
        grid = rng.integers(0, 256, (3, rows.shape[1], columns.shape[1]))
        noise += weight * (rows @ grid @ columns.T // cell**2)
    return (40 + noise * 60 // (7 * 255)).astype(np.uint8).transpose(1, 2, 0).copy()


def _spread(length: int, cell: int) -> np.ndarray:
    """Return weights (length, knots), times `cell`, of interpolation between knots `cell` pixels apart."""
    knots = np.arange(0, length + cell, cell)
    return np.maximum(cell - abs(np.arange(length)[:, None] - knots), 0)


def _color(rng: np.random.Generator, contrast: float) -> np.ndarray:
    return DARKNESS + contrast * (rng.uniform(170, 255, 3) - DARKNESS)


def _draw(
    image: np.ndarray,
    shape: Callable[[np.ndarray, np.ndarray], np.ndarray],
    x: float,
    y: float,
    radius: float,
    angle: float,
    color: np.ndarray,
    opacity: float = 1.0,
) -> None:
    """Blend one anti-aliased shape into `image` (H, W, 3), in place, within its bounding box."""
    height, width = image.shape[:2]
    left, right = (int(min(max(edge, 0), width)) for edge in (x - radius - 1, x + radius + 2))
    top, bottom = (int(min(max(edge, 0), height)) for edge in (y - radius - 1, y + radius + 2))
    right_of, below = np.arange(left, right) - x, np.arange(top, bottom)[:, None] - y
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    distance = radius * shape(
        (cos * right_of + sin * below) / radius, (cos * below - sin * right_of) / radius
    )
    cover = opacity * np.clip(0.5 - distance, 0, 1)[:, :, None]
    box = image[top:bottom, left:right]
    # All arithmetic is elementwise, and rounding removes differences between machines in the last bit.
    box[:] = np.round(box + cover * (color - box))


# Shapes are signed distances (negative inside) in coordinates in which the unit circle encloses them. All
# point along u, and no rotation by less than 180° maps one to itself.


def _rectangle(u: np.ndarray, v: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(abs(u) - half_width, abs(v) - half_height)


def _bar(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _rectangle(u, v, 0.95, 0.28)


def _ell(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    stem = _rectangle(u, v + 0.3, 0.85, 0.2)
    foot = _rectangle(u + 0.65, v, 0.2, 0.5)
    return np.minimum(stem, foot)


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(-0.75 - u, 0.96 * abs(v) + 0.28 * u - 0.27)


def _dotted_ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    ellipse = (np.sqrt(u * u + 4 * v * v) - 0.98) / 2
    dot = np.sqrt((u - 0.5) * (u - 0.5) + v * v) - 0.28
    return np.maximum(ellipse, -dot)


SHAPES = (_bar, _ell, _triangle, _dotted_ellipse)


def _shape(rng: np.random.Generator) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return SHAPES[rng.integers(len(SHAPES))]
