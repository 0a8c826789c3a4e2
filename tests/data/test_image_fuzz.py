"""Mutated images, archives and indexes: every fault is one line, and takes little time and memory.

The number of mutants is MMACTION_LITE_FUZZ (default 150 of each kind).
"""

import io
import json
import os
import random
import resource
import signal
import tarfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
import pytest
from PIL import Image

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.data.sources.write_shards import index_shards
from mmaction_lite.errors import UserError, VideoError

MUTANTS = int(os.environ.get("MMACTION_LITE_FUZZ", "150"))
MAX_SECONDS = 20
MAX_GROWTH_KIB = 1_500_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Pillow warns about damaged metadata of images that it reads
]


def picture(kind: str, **options) -> bytes:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x0112] = 6
    return tags.tobytes()


def seeds() -> dict[str, bytes]:
    """One small file of each kind."""
    images = {
        "jpg": picture("JPEG", exif=exif()),
        "progressive.jpg": picture("JPEG", progressive=True),
        "cmyk.jpg": to_bytes(Image.new("CMYK", (40, 30), (20, 50, 90, 10)), "JPEG"),
        "png": picture("PNG", exif=exif()),
        "16.png": to_bytes(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)), "PNG"),
        "palette.png": to_bytes(Image.fromarray(np.zeros((30, 40), np.uint8)).convert("P"), "PNG"),
        "webp": picture("WEBP", exif=exif()),
        "lossless.webp": picture("WEBP", lossless=True),
        "bmp": picture("BMP"),
        "tif": picture("TIFF"),
        "lzw.tif": picture("TIFF", compression="tiff_lzw"),
    }
    return images


def to_bytes(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def zip_of(method: int) -> bytes:
    stream = io.BytesIO()
    with ZipFile(stream, "w", method) as archive:
        for number in range(1, 4):
            archive.writestr(f"clip/{number}.png", picture("PNG"))
        archive.writestr("notes.txt", b"text")
    return stream.getvalue()


def tar_of(form: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for red, name in enumerate(
            ("a/clip/1.png", "a/clip/2.png", f"a/{'long' * 40}/1.png", "b/clip/1.png")
        ):
            data = to_bytes(Image.new("RGB", (16, 12), (red, 0, 0)), "PNG")
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def mutate(whole: bytes, rng: random.Random) -> bytes:
    """Change bits, bytes or numbers, or remove, repeat or insert a part."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 200))
        other = rng.randrange(len(data))
        way = rng.randrange(7)
        if way == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[place] = rng.randrange(256)
        elif way == 2:
            width = rng.choice((2, 4, 8))
            data[place : place + width] = rng.choice((b"\0", b"\xff", b"\x7f")) * width
        elif way == 3:
            del data[place : place + rng.randrange(1, 40)]
        elif way == 4:
            data[place:place] = data[other : other + rng.randrange(1, 400)]
        elif way == 5:
            data[place : place + 20] = data[other : other + 20]
        else:
            del data[max(1, place) :]
        data = data or bytearray(b"\0")
    return bytes(data)


def tar_with_headers(whole: bytes, rng: random.Random) -> bytes:
    """Change the fields of one tar header, and correct its checksum."""
    data = bytearray(whole)
    place = 512 * rng.randrange(len(data) // 512)
    field, width = rng.choice(((0, 100), (124, 12), (156, 1), (157, 100), (345, 155), (257, 8)))
    start = place + field + rng.randrange(max(1, width // 2))
    values = (b"\xff" * width, b"7" * width, b"\x80" + bytes(width - 1), rng.randbytes(width), b"../" * width)
    data[start : place + field + width] = rng.choice(values)[: place + field + width - start]
    data[place + 148 : place + 156] = b" " * 8
    data[place + 148 : place + 156] = b"%06o\0 " % sum(data[place : place + 512])
    return bytes(data)


def index_values(text: bytes, rng: random.Random) -> bytes:
    """Replace one value of an index."""
    index = json.loads(text)
    member = rng.choice(list(index["members"]))
    place = rng.choice(index["members"][member])
    values = (None, -1, 0, 2**70, 1e400, float("nan"), "x", [], {}, True, 512, 1024, rng.randrange(10**5))
    if rng.random() < 0.2:
        index["members"][member] = rng.choice(values)
    else:
        place[rng.randrange(len(place))] = rng.choice(values)
    return json.dumps(index).encode()


def read_all(path: Path) -> None:
    """Do what validation, training and tests do with a clip."""
    with open_source(path) as source:
        height, width = source.size
        source.frames(range(min(3, len(source))))
        source.frames([0], (0, 0, (height + 1) // 2, (width + 1) // 2), (16, 16))
        source.frames([len(source) - 1], None, (8, 8), antialias=False)
        assert isinstance(getattr(source, "note", ""), str)


def read_exactly(path: Path) -> None:
    """Check that an index gives the frames of this clip and no others."""
    read_all(path)
    with open_source(path) as source:
        assert source.frames(range(len(source)))[:, 0, 0, 0].tolist() == [0, 1]


def cases(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Write mutants one after the other; yield the kind of each and the function that reads it."""
    rng = random.Random(int(os.environ.get("MMACTION_LITE_FUZZ_SEED", "0")))
    for kind, data in seeds().items():
        for number in range(MUTANTS // 3):
            clip = folder / f"{kind}{number}"
            clip.mkdir()
            (clip / f"1.{kind.rpartition('.')[2]}").write_bytes(mutate(data, rng))
            (clip / f"2.{kind.rpartition('.')[2]}").write_bytes(data)
            yield kind, lambda clip=clip: read_all(clip)
    for name, method in (("stored", ZIP_STORED), ("deflated", ZIP_DEFLATED)):
        data = zip_of(method)
        for number in range(MUTANTS):
            file = folder / f"{name}{number}.zip"
            file.write_bytes(mutate(data, rng))
            yield "zip", lambda file=file: read_all(file)
    for name, form in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT)):
        data = tar_of(form)
        for number in range(MUTANTS):
            tar = folder / f"{name}{number}.tar"
            tar.write_bytes((tar_with_headers if number % 2 else mutate)(data, rng))

            def read(tar=tar) -> None:
                for _, member, _ in index_shards([tar], VIDEO_SUFFIXES):
                    read_all(tar / member)

            yield "tar", read
    tar, index = folder / "whole.tar", folder / "whole.tar.index.json"
    tar.write_bytes(tar_of(tarfile.PAX_FORMAT))
    index_shards([tar], VIDEO_SUFFIXES)
    text = index.read_bytes()
    for number in range(MUTANTS):
        index.write_bytes((index_values if number % 2 else mutate)(text, rng))
        yield "index", lambda: read_exactly(tar / "a/clip")


def test_every_mutant_reads_or_is_one_line(tmp_path: Path) -> None:
    def late(*arguments: object) -> None:
        raise TimeoutError(f"took {MAX_SECONDS} s")

    counts: Counter[str] = Counter()
    others: list[str] = []
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGALRM, late)
    try:
        for kind, read in cases(tmp_path):
            signal.alarm(MAX_SECONDS)
            start = time.monotonic()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read()
                counts[f"{kind} read"] += 1
            except UserError as error:
                counts[f"{kind} refused"] += 1
                is_expected = isinstance(error, VideoError) or kind == "tar"
                if not is_expected or "\n" in str(error) or "TimeoutError" in str(error):
                    others.append(f"{kind}: {error!r}")
            except Exception as error:
                others.append(f"{kind}: {error!r}")
            finally:
                signal.alarm(0)
            slowest = max(slowest, time.monotonic() - start)
    finally:
        signal.signal(signal.SIGALRM, previous)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{sum(counts.values())} mutants, slowest {slowest:.2f} s, {growth / 1024:.0f} MiB: {dict(counts)}")
    assert others == []
    assert growth < MAX_GROWTH_KIB
