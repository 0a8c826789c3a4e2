"""CPU time per clip of this package's reader, of a linear reader, of other decoders, and a lower bound.

    python benchmarks/decode.py [VIDEO] [--clips 12]

The video (by default a generated one, 340x256, 300 frames) is encoded with x264 twice: with the default
distance of 250 frames between keyframes, and with a keyframe every 10 frames. For each sampling pattern, the
readers alternate on the same random positions, so that load on the machine affects all of them. The table
shows the median CPU time and the median of the ratios per position. All readers decode with one thread.

The lower bound ("floor") decodes the required packets to YUV, without building an index or converting to RGB.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from mmaction_lite.benchmark.loader import Read, installed_readers, read_linear, read_planned
from mmaction_lite.data.sources import index_cache
from mmaction_lite.data.sources.container import open_stream
from mmaction_lite.data.sources.index_cache import IndexCache
from mmaction_lite.data.sources.video import Video

KNOWN = IndexCache(2**20)


def segments(count: int) -> Callable[[int, np.random.Generator], list[int]]:
    def pattern(length: int, rng: np.random.Generator) -> list[int]:
        return [int((segment + rng.random()) * length / count) for segment in range(count)]

    return pattern


def dense(clip_len: int, interval: int, clips: int = 1) -> Callable[[int, np.random.Generator], list[int]]:
    def pattern(length: int, rng: np.random.Generator) -> list[int]:
        last = length - clip_len * interval
        starts = [int(rng.integers(last))] if clips == 1 else np.linspace(0, last, clips).astype(int)
        return [int(start) + interval * step for start in starts for step in range(clip_len)]

    return pattern


PATTERNS = {
    "3 segments": segments(3),
    "8 segments": segments(8),
    "4x16": dense(4, 16),
    "8x8": dense(8, 8),
    "32x2": dense(32, 2),
    "10 x 32x2": dense(32, 2, 10),
}


def read_uncached(path: str, indices: list[int]) -> object:
    index_cache.index_cache = IndexCache(0)  # no file is in the cache, as in an epoch over a large data set
    return read_planned(path, indices)


def read_cached(path: str, indices: list[int]) -> object:
    index_cache.index_cache = KNOWN
    return read_planned(path, indices)


def floor_of(path: str) -> Read:
    """Return a reader that knows the packet index of `path` and decodes to YUV only."""
    with Video(path) as video:
        video.frames(range(len(video)))
        index = video._index

    def read(path: str, indices: list[int]) -> object:
        numbers = np.unique(index.order[indices])
        starts = np.minimum.accumulate(index.starts(numbers)[::-1])[::-1]
        needed, wanted = set(), set(numbers.tolist())
        for start, packet in zip(starts.tolist(), numbers.tolist(), strict=True):
            needed.update(range(start, packet + 1))
        count, end = 0, max(needed)
        with open_stream(path) as opened:
            decoder = opened.stream.codec_context
            for number, packet in enumerate(opened.container.demux(opened.stream)):
                if number in needed:
                    decoder.skip_frame = "DEFAULT" if number in wanted else "NONREF"
                    count += len(decoder.decode(packet))
                if number == end:
                    return count + len(decoder.decode(None))

    return read


def encode(source: Path, path: Path, distance: int) -> str:
    """Re-encode the video of `source` with x264's defaults and a keyframe every `distance` frames."""
    with open_stream(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream("libx264", rate=30, options={"g": str(distance)})
        assert isinstance(stream, VideoStream)
        shape = old.stream
        stream.width, stream.height, stream.pix_fmt = shape.width, shape.height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for number, frame in enumerate(old.container.decode(old.stream)):
            frame.pts, frame.time_base = number, Fraction(1, 30)
            new.mux(stream.encode(frame))
        new.mux(stream.encode())
    return str(path)


def generate(path: Path) -> Path:
    """Write 300 frames of a textured scene under a moving camera, with moving objects, noise and two cuts."""
    rng = np.random.default_rng(0)
    scenes = []
    for _ in range(3):
        octaves = [
            rng.integers(0, 256, (512 // s, 640 // s, 3)).repeat(s, 0).repeat(s, 1) for s in (64, 16, 4)
        ]
        scenes.append(sum(weight * octave for weight, octave in zip((0.5, 0.35, 0.15), octaves, strict=True)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "18"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        place = np.array([120.0, 150.0])
        for number in range(300):
            place = np.clip(place + rng.normal(0, 1.5, 2), 0, [255, 299])
            top, left = place.astype(int)
            frame = scenes[number // 100][top : top + 256, left : left + 340].copy()
            for thing in range(4):
                y, x = (
                    int(110 + 90 * np.sin(number / 17 + thing)),
                    int(150 + 130 * np.cos(number / 23 + 2 * thing)),
                )
                frame[y : y + 40, x : x + 30] = scenes[thing % 3][y : y + 40, :30]
            frame += rng.normal(0, 3, frame.shape)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.clip(0, 255).astype(np.uint8))))
        container.mux(stream.encode())
    return path


def measure(path: str, readers: dict[str, Read], indices: list[list[int]]) -> dict[str, list[float]]:
    """Return the CPU milliseconds of each reader for each list of indices; the readers alternate."""
    milliseconds: dict[str, list[float]] = {name: [] for name in readers}
    for read in readers.values():  # imports and first allocations
        read(path, indices[0])
    for clip in indices:
        for name, read in readers.items():
            start = time.process_time()
            read(path, clip)
            milliseconds[name].append(1000 * (time.process_time() - start))
    return milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time per clip of video readers")
    parser.add_argument("video", nargs="?", type=Path, help="source clip; generated when left out")
    parser.add_argument("--clips", type=int, default=12, help="random clips per pattern")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.video or generate(Path(folder, "source.mp4"))
        for distance in (250, 10):
            path = encode(source, Path(folder, f"gop{distance}.mp4"), distance)
            readers: dict[str, Read] = {
                "floor": floor_of(path),
                "planned": read_uncached,
                "index known": read_cached,
                "linear": read_linear,
            }
            readers |= installed_readers()
            with Video(path) as video:
                length, (height, width) = len(video), video.size
            size = Path(path).stat().st_size / 1000
            print(
                f"\ngop{distance}: {length} frames, {width}x{height}, {size:.0f} kB; median CPU ms per clip"
            )
            compared = [name for name in readers if name != "planned"]
            print(" " * 10 + "".join(f"{n:>12}" for n in readers) + "   planned to " + ", ".join(compared))
            for name, pattern in PATTERNS.items():
                rng = np.random.default_rng(0)
                times = measure(path, readers, [pattern(length, rng) for _ in range(arguments.clips)])
                medians = "".join(f"{statistics.median(times[reader]):12.1f}" for reader in readers)
                ratios = (
                    statistics.median(a / b for a, b in zip(times["planned"], times[o], strict=True))
                    for o in compared
                )
                print(f"{name:10}{medians}   " + "  ".join(f"{ratio:.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
