"""Generated clips with the decoding cost of Kinetics-400, for measuring video readers.

340x256 pixels, 300 frames at 30 fps, encoded by x264 with its defaults, 0.5 to 1.4 MB: a textured scene under
a moving hand-held camera, with moving objects, grain and two cuts. Flat or static scenes decode far faster.
The clips show no actions, so a model cannot learn from them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from mmaction_lite.data.loading.parallel import run_tasks
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.errors import UserError, printable
from mmaction_lite.files import check_output_folder

HEIGHT, WIDTH, FRAMES, FPS = 256, 340, 300, 30
CAMERA_PIXELS, SPEED_PIXELS, GRAIN_LEVELS, MARGIN = 8.0, 0.93, 10.2, 96
DENSE_CRF = 25  # at the default of 23, files with keyframes every 10 frames are larger than those of Kinetics
CLASSES = 4


def generate_scenes(
    out: Path, num_clips: int, keyframe_every: int | None, num_workers: int
) -> Iterator[None]:
    """Write class directories of clips under `out/train` and `out/val`; existing clips are kept.

    Args:
        out: the directory.
        num_clips: number of training clips; a quarter as many, but at least one, are written for validation.
        keyframe_every: distance between keyframes in frames; None for x264's default of 250.
        num_workers: number of processes.

    Yields:
        None after each clip.

    Raises:
        UserError: `out` contains other files or cannot be written.
    """
    check_output_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    _check_contents(out)
    numbers = list(range(num_clips + max(1, num_clips // 4)))
    yield from run_tasks(
        Scenes(out, num_clips, keyframe_every), numbers, WorkerSettings(num_workers=num_workers)
    )


def _check_contents(out: Path) -> None:
    """Check that a folder contains nothing but folders of scenes.

    Raises:
        UserError: it does.
    """
    for entry in out.iterdir():
        is_split = entry.name in ("train", "val") and entry.is_dir()
        for inner in entry.iterdir() if is_split else [entry]:
            if not is_split or not re.fullmatch(r"scene_\d+", inner.name):
                raise UserError(
                    f"{out}: contains {printable(str(inner.relative_to(out)))}, which is not a generated "
                    "clip; use a new or empty folder"
                )


class Scenes:
    """Task of `run_tasks`: writes the clip of a number.

    Args:
        out: see `generate_scenes`.
        num_training: number of training clips; larger numbers are validation clips.
        keyframe_every: see `generate_scenes`.
    """

    def __init__(self, out: Path, num_training: int, keyframe_every: int | None):
        self.out = out
        self.num_training = num_training
        self.keyframe_every = keyframe_every

    def __call__(self, number: int) -> None:
        """Write clip `number` unless it exists."""
        split = "train" if number < self.num_training else "val"
        file = self.out / split / f"scene_{number % CLASSES}" / f"{number:05}.mp4"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            write_scene(part, number, self.keyframe_every)
            part.rename(file)

    def failed(self, number: int, reason: str) -> None:
        """Stop at the first clip that cannot be written."""
        raise RuntimeError(f"clip {number}: {reason}")


def write_scene(file: Path, seed: int, keyframe_every: int | None = None) -> None:
    """Write one clip, which depends on `seed` and `keyframe_every` only."""
    rng = np.random.default_rng(seed)
    scenes = [_texture(rng) for _ in range(3)]
    # Grain is a random window of one noise field: new noise per frame would take longer than encoding.
    noise = rng.normal(0, GRAIN_LEVELS, (2 * HEIGHT, 2 * WIDTH, 3)).astype(np.float32)
    options = {} if keyframe_every is None else {"g": str(keyframe_every), "crf": str(DENSE_CRF)}
    reformatter = VideoReformatter()
    with av.open(f"file:{file}", "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        place, speed = np.array([MARGIN / 2, MARGIN / 2]), np.zeros(2)
        phases = rng.uniform(0, 2 * np.pi, (4, 2))
        for number in range(FRAMES):
            # The camera moves with inertia and is pulled back to the middle.
            speed = SPEED_PIXELS * speed + rng.normal(0, 1, 2) * CAMERA_PIXELS * (1 - SPEED_PIXELS)
            place = np.clip(place + speed + 0.01 * (MARGIN / 2 - place), 0, MARGIN - 1)
            frame = _cut(scenes[3 * number // FRAMES], *place)
            for thing, (a, b) in enumerate(phases):
                y = int((HEIGHT - 60) * (0.5 + 0.5 * np.sin(number / 17 + a)))
                x = int((WIDTH - 50) * (0.5 + 0.5 * np.cos(number / 23 + b)))
                frame[y : y + 60, x : x + 50] = scenes[(thing + 1) % 3][thing : thing + 60, :50]
            dy, dx = rng.integers(HEIGHT), rng.integers(WIDTH)
            frame += noise[dy : dy + HEIGHT, dx : dx + WIDTH]
            picture = av.VideoFrame.from_ndarray(frame.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(reformatter.reformat(picture, format="yuv420p", threads=1)))
        container.mux(stream.encode(None))


def _cut(scene: np.ndarray, top: float, left: float) -> np.ndarray:
    """Return the frame at a subpixel position, for which decoders must interpolate instead of copying."""
    y, x = int(top), int(left)
    down, right = np.float32(top - y), np.float32(left - x)
    rows = scene[y : y + HEIGHT + 1, x : x + WIDTH + 1]
    rows = rows[:-1] + down * (rows[1:] - rows[:-1])
    return rows[:, :-1] + right * (rows[:, 1:] - rows[:, :-1])


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Return a sum of random blocks of three sizes, float32 (HEIGHT + MARGIN + 1, WIDTH + MARGIN + 1, 3)."""
    height, width = HEIGHT + MARGIN + 1, WIDTH + MARGIN + 1
    total = np.zeros((height, width, 3), np.float32)
    for side, weight in ((64, 0.5), (24, 0.3), (8, 0.2)):
        shape = (-(-height // side), -(-width // side), 3)
        blocks = rng.integers(0, 256, shape).astype(np.float32).repeat(side, 0).repeat(side, 1)
        total += weight * blocks[:height, :width]
    return total
