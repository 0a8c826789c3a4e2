"""Damaged videos for fuzzing, each a pure function of its number, and a process that reads them.

`python -m tests.data.mutants FOLDER FIRST COUNT` prints one JSON line before and after each mutant, with the
exception if it was another than VideoError.
"""

import json
import random
import resource
import sys
import time
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from mmaction_lite.data.sources.faults import MispredictedError
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import VideoError
from tests import barcode

BASES: dict[str, dict] = {
    "h264.mp4": {"options": {"g": "10"}},
    "moov.mp4": {"options": {"g": "10"}, "muxer": {"movflags": "faststart"}},
    "fragmented.mp4": {"options": {"g": "8"}, "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.mkv": {"options": {"g": "10", "bf": "3"}},
    "h264.ts": {"options": {"g": "10"}},
    "h264.flv": {"options": {"g": "10", "bf": "0"}},
    "raw.h264": {"options": {"g": "10"}},
    "h264.avi": {"options": {"g": "10", "bf": "0"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "10", "bf": "2"}},
    "mpeg4.mov": {"codec": "mpeg4", "options": {"g": "10"}},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"preset": "ultrafast", "x265-params": "keyint=10:bframes=2:log-level=none"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "g": "10"}},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8", "g": "10"}},
    "ffv1.mkv": {"codec": "ffv1", "pix_fmt": "yuv420p"},
    "gray16.mkv": {"codec": "ffv1", "pix_fmt": "gray16le"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "10", "bf": "2"}},
    "picture.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "theora.nut": {"codec": "mpeg4"},
    "wmv.asf": {"codec": "wmv2"},
}
KINDS = ("bits", "bits", "many_bits", "head", "field", "field", "cut", "zeros", "remove", "repeat", "join")
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0, 0x10000)


def write_bases(folder: Path) -> dict[str, bytes]:
    """Write the sound videos, 24 frames each, unless they exist; return their contents by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, how in BASES.items():
        if not (folder / name).exists():
            draft = barcode.write(folder / f"draft_{name}", range(24), **how)
            draft.replace(folder / name)
    return {name: (folder / name).read_bytes() for name in BASES}


def mutant(number: int, bases: dict[str, bytes]) -> tuple[str, bytes]:
    """Return name and content of a damaged video."""
    rng = random.Random(number)
    name = rng.choice(list(bases))
    content, kind = bytearray(bases[name]), rng.choice(KINDS)
    length = len(content)
    # Headers are short; half of the damage is done there.
    place = rng.randrange(min(length, 1500)) if rng.random() < 0.5 else rng.randrange(length)
    if kind in ("bits", "many_bits", "head"):
        for _ in range({"bits": 8, "many_bits": 64, "head": 4}[kind]):
            content[rng.randrange(min(length, 400) if kind == "head" else length)] ^= 1 << rng.randrange(8)
    elif kind == "field":
        size = rng.choice((1, 2, 4, 8))
        value = rng.choice((*EXTREMES, rng.randrange(2**32))) & (256**size - 1)
        content[place : place + size] = value.to_bytes(size, rng.choice(("big", "little")))
    elif kind == "cut":
        content = content[: rng.randrange(length)]
    elif kind == "zeros":
        size = rng.randrange(1, 400)
        content[place : place + size] = bytes(size)
    elif kind == "remove":
        del content[place : place + rng.randrange(1, 800)]
    elif kind == "repeat":
        content[place:place] = content[place : place + rng.randrange(1, 800)]
    else:
        content += bases[rng.choice([other for other in bases if rng.random() < 0.3 or other == name])]
    return f"m{number}_{kind}_{name}", bytes(content)


def read_everything(path: Path, data: bytes | None, rng: random.Random) -> np.ndarray | None:
    """Call every method of a video; return its frames if the file is readable and short."""
    with Video(path, data) as video:
        length, size = len(video), video.size
        assert length > 0
        assert video.codec
        assert isinstance(video.note, str)
        assert video.fps > 0 or video.fps != video.fps
        video.frames(sorted(rng.choices(range(length), k=4)))
        video.frames([length - 1, 0], (0, 0, size[0] // 2 or 1, size[1] // 2 or 1), (8, 8))
        if length > 60:
            return None
        return video.frames(range(length))


def walk(path: Path) -> None:
    """Walk over the whole video, twice if its order was not known."""
    for _ in range(2):
        try:
            with Video(path) as video:
                for index, seconds, pixels in video.walk():
                    assert seconds >= 0
                    assert pixels.shape == (*video.size, 3)
                    if index > 60:
                        return
            return
        except MispredictedError:
            continue


def linear_decode(path: Path) -> list[np.ndarray | None]:
    """Decode a video from its beginning to its end.

    In damaged frames, decoders leave memory as an earlier frame left it. Such frames depend on how long the
    caller holds the earlier ones; they are None here.
    """
    decoded, held = [], []
    for keep in (False, True):
        pictures = []
        with av.open(str(path)) as container:
            stream = container.streams.best("video")
            assert isinstance(stream, VideoStream)
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                pictures.append(frame.to_ndarray(format="rgb24", threads=1))
                held += [frame] if keep else []
                if len(pictures) > 200:
                    break
        held.clear()
        decoded.append(pictures)
    first, second = decoded
    return [one if np.array_equal(one, other) else None for one, other in zip(first, second, strict=True)]


def differs_from_linear(path: Path, frames: np.ndarray) -> str:
    """Return how a plain linear decode differs, if it succeeds; otherwise an empty text."""
    try:
        pictures = linear_decode(path)
    except Exception:
        return ""
    if len(pictures) != len(frames):
        return f"{len(frames)} frames, {len(pictures)} in a linear decode"
    differ = [
        number
        for number, (picture, frame) in enumerate(zip(pictures, frames, strict=True))
        if picture is not None and picture.shape == frame.shape and (picture != frame).any()
    ]
    return f"frames {differ} differ from a linear decode" if differ else ""


def main(folder: Path, first: int, count: int) -> None:
    bases = write_bases(folder)
    for number in range(first, first + count):
        name, content = mutant(number, bases)
        path = folder / name
        path.write_bytes(content)
        print(json.dumps({"number": number, "name": name}), flush=True)
        start, problem, difference = time.monotonic(), "", ""
        for data in (None, content):
            frames = None
            try:
                frames = read_everything(path, data, random.Random(number))
                walk(path)
            except VideoError as error:
                text = str(error)
                if not text.startswith(f"{path}: ") or not text.isprintable() or len(text) > 1000:
                    problem = f"message: {text!r}"
            except BaseException as error:
                problem = f"{type(error).__name__}: {error}"
            if frames is not None and not difference:
                difference = differs_from_linear(path, frames)
        result = {"number": number, "name": name, "problem": problem, "difference": difference}
        result["seconds"] = round(time.monotonic() - start, 2)
        result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(result), flush=True)
        if not problem and not difference:
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
