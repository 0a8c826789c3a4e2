"""Damaged, cut and joined videos: the frames of a linear decode, or one VideoError."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError
from av.video.stream import VideoStream

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.loader import VideoDataset
from mmaction_lite.data.sources.resample import crop_and_resize
from mmaction_lite.data.sources.video import Video
from mmaction_lite.data.tools.validate import validate
from mmaction_lite.data.views.samplers import TimedClips
from mmaction_lite.errors import VideoError
from tests import barcode
from tests.conftest import small_recipe
from tests.data.mutants import linear_decode, mutant, write_bases

ROOT = Path(__file__).parents[2]
SECONDS_PER_MUTANT = 20.0
PEAK_MB = 2000
# Mutants of the slow test; 3,000 take about four minutes.
MUTANTS = int(os.environ.get("MMACTION_LITE_MUTANTS", "400"))
CODECS: dict[str, dict] = {
    "h264": {"options": {"g": "8", "bf": "2"}},
    "hevc": {
        "codec": "libx265",
        "options": {"preset": "ultrafast", "x265-params": "keyint=8:bframes=2:log-level=none"},
    },
    "mpeg4": {"codec": "mpeg4", "options": {"g": "8"}},
    "vp9": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "g": "8"}},
    "ffv1": {"codec": "ffv1"},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}
CONTAINERS = {
    "h264": (".mp4", ".mkv", ".ts", ".avi", ".flv"),
    "hevc": (".mp4", ".mkv", ".ts"),
    "mpeg4": (".mp4", ".mkv", ".ts", ".avi"),
    "vp9": (".webm", ".mp4"),
    "ffv1": (".mkv", ".avi"),
    "mjpeg": (".avi", ".mkv", ".mov"),
}


def linear(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, VideoStream)
        stream.codec_context.thread_count = 1
        return [frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(stream)]


def copy_packets(
    source: Path, target: Path, change: Callable[[list[av.Packet]], list[av.Packet]]
) -> Path | None:
    """Write `change(packets)` of a file to another one; None if the format cannot hold them."""
    try:
        with av.open(str(source)) as old, av.open(str(target), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in change([packet for packet in old.demux(video=0) if packet.size]):
                packet.stream = stream
                new.mux(packet)
    except (ValueError, FFmpegError):
        return None
    return target


def shifted(packets: list[av.Packet], offset: int) -> list[av.Packet]:
    for packet in packets:
        packet.pts = None if packet.pts is None else packet.pts + offset
        packet.dts = None if packet.dts is None else packet.dts + offset
    return packets


def write_variants(source: Path, folder: Path) -> list[Path]:
    """Write joined, cut and edited copies of a video."""
    suffix, content = source.suffix, source.read_bytes()
    with av.open(str(source)) as container:
        times = [p.dts for p in container.demux(video=0) if p.size and p.dts is not None]
    step = max(1, (times[-1] - times[0]) // max(1, len(times) - 1)) if times else 1
    changes: dict[str, Callable[[list[av.Packet]], list[av.Packet]]] = {
        "without_first": lambda packets: packets[1:],
        "middle": lambda packets: packets[5:],
        "without_second_key": lambda packets: packets[:8] + packets[9:],
        "without_some": lambda packets: [p for number, p in enumerate(packets) if number not in (10, 11, 19)],
        "later": lambda packets: shifted(packets, 1000 * step),
        "gap": lambda packets: packets[:12] + shifted(packets[12:], 500 * step),
        "back": lambda packets: packets[:16] + shifted(packets[16:], -9 * step),
        "negative": lambda packets: shifted(packets, -7 * step),
    }
    written = [copy_packets(source, folder / f"{name}{suffix}", change) for name, change in changes.items()]
    rng = random.Random(0)
    raw = {
        "joined": content + content,
        "cut": content[: len(content) * 6 // 10],
        "cut_joined": content[: len(content) * 7 // 10] + content,
        "joined_middle": content + content[len(content) // 3 :],
        "hole": content[: len(content) // 2] + content[len(content) // 2 + rng.randrange(100, 900) :],
    }
    for name, data in raw.items():
        (folder / f"{name}{suffix}").write_bytes(data)
        written.append(folder / f"{name}{suffix}")
    return [path for path in written if path is not None]


def compare_with_linear_decode(path: Path, seed: int) -> str:
    """Compare random frames with a linear decode; return how the file was read."""
    rng = random.Random(seed)
    try:
        truth = linear_decode(path)
    except Exception:
        truth = None
    try:
        with Video(path) as video:
            length = len(video)
            patterns = [rng.choices(range(length), k=5) for _ in range(3)] + [range(length)]
            frames = [video.frames(pattern) for pattern in patterns]
    except VideoError as error:
        return "error" if str(error).startswith(f"{path}: ") else f"{error}: expected the path first"
    if truth is None:
        return "partial"  # a plain decoder fails: these are the frames before the damage
    if length != len(truth):
        return f"{length} frames, {len(truth)} in a linear decode"
    for pattern, found in zip(patterns, frames, strict=True):
        for index, frame in zip(pattern, found, strict=True):
            right = truth[index]
            if right is not None and not np.array_equal(frame, right):
                return f"frame {index} differs from a linear decode"
    return "equal"


@pytest.mark.slow
@pytest.mark.parametrize("codec", list(CODECS))
def test_joined_cut_and_edited_files_equal_a_linear_decode(
    tmp_path: Path, codec: str, subtests: pytest.Subtests
) -> None:
    outcomes = []
    for suffix in CONTAINERS[codec]:
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        source = barcode.write(folder / f"source{suffix}", range(24), **CODECS[codec])
        assert compare_with_linear_decode(source, 0) == "equal"
        for number, path in enumerate(write_variants(source, folder)):
            with subtests.test(f"{codec} {path.name}"):
                outcomes.append(compare_with_linear_decode(path, number))
                assert outcomes[-1] in ("equal", "error", "partial")
    assert outcomes.count("equal") >= len(outcomes) // 3


def join(paths: list[Path], target: Path) -> Path:
    """Join videos packet by packet, each after the end of the one before."""
    with av.open(str(target), "w") as new:
        stream = None
        offset = 0
        for path in paths:
            with av.open(str(path)) as old:
                stream = stream or new.add_stream_from_template(old.streams.video[0])
                packets = [packet for packet in old.demux(video=0) if packet.size]
                times = sorted(packet.pts for packet in packets if packet.pts is not None)
                for packet in shifted(packets, offset):
                    packet.stream = stream
                    new.mux(packet)
                offset += times[-1] + times[1] - 2 * times[0]
    return target


def write_size(path: Path, codes: range, size: tuple[int, int], codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options={"g": "5", "bf": "0"})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for code in codes:
            picture = crop_and_resize(barcode.draw(code)[None], None, size)[0]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".ts"), ("mpeg4", ".ts"), ("mjpeg", ".avi")])
def test_frames_of_another_size_are_resized_to_the_first(tmp_path: Path, codec: str, suffix: str) -> None:
    if suffix == ".ts":
        sizes = [(96, 128), (192, 256), (48, 64)]
        parts = [
            write_size(tmp_path / f"{n}.ts", range(10 * n, 10 * n + 10), size, codec)
            for n, size in enumerate(sizes)
        ]
        path = tmp_path / "sizes.ts"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
    else:
        parts = [write_size(tmp_path / f"{n}.avi", range(10), (96 << n, 128 << n), codec) for n in range(2)]
        path = join(parts, tmp_path / "sizes.avi")
    truth = linear(path)
    assert len({picture.shape for picture in truth}) > 1
    box, size = (8, 16, 64, 100), (32, 40)
    last = len(truth) - 1
    for antialias in (True, False):
        whole = [
            crop_and_resize(picture[None], None, truth[0].shape[:2], antialias=antialias) for picture in truth
        ]
        scaled = np.concatenate(whole)
        pattern = [last, 3, 15, 0]
        for warm in range(2):  # with a new index, and with a remembered one
            with Video(path) as video:  # without asking for the size first
                assert np.array_equal(video.frames(pattern, antialias=antialias), scaled[pattern]), warm
            with Video(path) as video:
                assert np.array_equal(video.frames([last], antialias=antialias), scaled[[last]])
                assert video.size == truth[0].shape[:2]
                expected = crop_and_resize(scaled[pattern], box, size, antialias=antialias)
                assert np.array_equal(video.frames(pattern, box, size, antialias), expected)
    with Video(path) as video:
        walked = np.stack([pixels.copy() for _, _, pixels in video.walk()])
    assert len(walked) == len(truth)
    assert walked.shape[1:] == truth[0].shape


def test_joined_transport_streams_give_all_frames(tmp_path: Path) -> None:
    parts = [
        barcode.write(tmp_path / f"{name}.ts", codes, options={"g": "10"})
        for name, codes in (("a", range(15)), ("b", range(15, 55)))
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Video(path) as video:
        assert len(video) == 55
        assert [barcode.read(frame) for frame in video.frames(range(55))] == list(range(55))
        assert [barcode.read(frame) for frame in video.frames([54, 14, 15, 2])] == [54, 14, 15, 2]


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_joined_matroska_files_give_all_frames(tmp_path: Path, suffix: str) -> None:
    how = CODECS["vp9"] if suffix == ".webm" else {}
    parts = [
        barcode.write(tmp_path / f"{name}{suffix}", codes, **how)
        for name, codes in (("a", range(10)), ("b", range(10, 24)))
    ]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Video(path) as video:
        assert len(video) == 24
        assert [barcode.read(frame) for frame in video.frames([23, 9, 10, 0])] == [23, 9, 10, 0]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_stream_that_begins_in_the_middle_of_a_gop(tmp_path: Path, suffix: str) -> None:
    source = barcode.write(tmp_path / f"whole{suffix}", range(40), options={"g": "20", "bf": "0"})
    path = copy_packets(source, tmp_path / f"middle{suffix}", lambda packets: packets[8:])
    assert path is not None
    truth = linear(path)
    with Video(path) as video:
        assert len(video) == len(truth)
        assert np.array_equal(video.frames(range(len(truth))), np.stack(truth))


def test_a_length_that_shrinks_is_an_error_each_time(tmp_path: Path) -> None:
    """The first packet claims to be a keyframe: the decoder drops all frames before the next one."""

    def claim(number: int, packet: av.Packet) -> None:
        packet.is_keyframe = packet.is_keyframe or number == 0

    source = barcode.write(tmp_path / "whole.mp4", range(40), options={"g": "20", "bf": "0"})
    middle = copy_packets(source, tmp_path / "middle.mp4", lambda packets: packets[8:])
    assert middle is not None
    path = barcode.remux(middle, tmp_path / "claims.mp4", claim)
    truth = len(linear(path))
    for _ in range(2):
        with Video(path) as video:
            if len(video) == truth:
                assert video._index.fault
            with pytest.raises(VideoError, match=f"lists 32 frames, but {truth} decode"):
                video.frames([0, 5])
            with pytest.raises(VideoError, match="lists 32 frames"):
                video.frames([0])
            assert len(video) == truth


def read_mutants(folder: Path, first: int, count: int) -> list[dict]:
    """Read mutants in a process of their own; a signal or a hang ends the process and counts as a problem."""
    results: list[dict] = []
    while len(results) < count:
        command = [sys.executable, "-m", "tests.data.mutants", str(folder), str(first + len(results))]
        command += [str(min(250, count - len(results)))]
        log = folder / "log.jsonl"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, cwd=ROOT)
            try:
                status = process.wait(timeout=250 + SECONDS_PER_MUTANT)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        results += [line for line in lines if "problem" in line]
        if status:
            results.append({**lines[-1], "problem": f"exit status {status}", "seconds": 0, "peak_mb": 0})
    return results


@pytest.mark.slow
def test_mutants_of_many_formats_raise_nothing_but_video_errors(tmp_path: Path) -> None:
    folder = tmp_path / "mutants"
    write_bases(folder)
    results = read_mutants(folder, 0, MUTANTS)
    assert len({result["number"] for result in results}) == MUTANTS
    assert [result for result in results if result["problem"]] == []
    assert max(result["seconds"] for result in results) < SECONDS_PER_MUTANT
    assert max(result["peak_mb"] for result in results) < PEAK_MB


@pytest.mark.slow
def test_mutants_in_validation_training_and_prediction(tmp_path: Path) -> None:
    """Every mutant gives a clip, or is reported as unreadable and replaced by another one."""
    bases = write_bases(tmp_path / "bases")
    for number in range(2000, 2000 + MUTANTS // 4):
        name, content = mutant(number, bases)
        path = tmp_path / "data" / "train" / ("even", "odd")[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    data = tmp_path / "data"
    report = validate(data, lambda items, total, title: items)
    samples = read_split(data, "train")
    unreadable = {fault.partition(": ")[0] for fault in report.faults}
    assert 0 < len(unreadable) < len(samples)
    recipe = small_recipe()
    timed, readable = TimedClips(clip_len=4, target_fps=10), 0
    for views in (recipe.train, replace(recipe.train, clips=timed)):
        dataset = VideoDataset(samples, views, seed=0)
        for sample in range(len(samples)):
            clip = dataset[sample, sample]
            readable += clip.pixels is not None  # None: each of the replacements was unreadable, too
            assert all(fault.reason.startswith(f"{data}/") for fault in clip.faults)
    assert readable > len(samples)
    for views in (recipe.test, replace(recipe.test, clips=timed)):
        dataset = VideoDataset(samples, views)
        for sample in range(len(samples)):
            clip = dataset[sample]
            assert clip.pixels is not None or clip.faults
