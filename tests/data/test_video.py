import multiprocessing
import pickle
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from mmaction_lite.data.sources import index_cache
from mmaction_lite.data.sources import source as sources
from mmaction_lite.data.sources import video as video_module
from mmaction_lite.data.sources.index_cache import IndexCache
from mmaction_lite.data.sources.orientation import UprightPixels
from mmaction_lite.data.sources.resample import crop_and_resize
from mmaction_lite.data.sources.sequential import frame_times
from mmaction_lite.data.sources.video import Video
from mmaction_lite.data.views.samplers import (
    ClipSampler,
    DenseClips,
    PySlowFastClips,
    SegmentFrames,
    TimedClips,
    TimedSampler,
)
from mmaction_lite.errors import VideoError
from tests import barcode
from tests.data.conftest import GENERATED

SHARED = Path(__file__).parents[3] / "shared" / "videos"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real clips are not beside the repository")


@pytest.fixture(autouse=True)
def empty_index_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "index_cache", IndexCache(2**20))


def linear(path: Path, last: int | None = None) -> Iterator[np.ndarray]:
    """Every upright frame up to `last`, decoded from the beginning with nothing left out."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        stream.codec_context.thread_count = 1
        for index, frame in enumerate(container.decode(stream)):
            assert isinstance(frame, av.VideoFrame)
            yield np.rot90(frame.to_ndarray(format="rgb24", threads=1), round(frame.rotation / 90))
            if index == last:
                return


def patterns(length: int, seed: int = 0) -> list[list[int]]:
    """Return index lists as samplers produce them, and difficult ones."""
    rng = random.Random(seed)
    few = sorted(rng.choices(range(length), k=3))
    dense = [min(length - 1, rng.randrange(length) + 2 * step) for step in range(6)]
    mixed = rng.choices(range(length), k=8)
    return [few, dense, mixed, [length - 1], [0, length - 1, 0], [length // 2] * 2]


@pytest.mark.parametrize("name", GENERATED)
def test_generated_clips_give_the_frames_asked_for(clips: Path, name: str) -> None:
    count = len(GENERATED[name].get("codes", range(60)))
    truth = list(linear(clips / name))
    for again in range(2):  # with a packet index just made, and with a remembered one
        for number, pattern in enumerate([*patterns(count), *patterns(count, seed=1)]):
            with Video(clips / name) as video:
                assert len(video) == count
                first, second = video.frames(pattern), video.frames(pattern[::-1])
            case = f"pattern {number} {pattern}, reading {again}"
            assert [barcode.read(frame) for frame in first] == pattern, case
            assert np.array_equal(first, np.stack([truth[index] for index in pattern])), case
            assert np.array_equal(second, first[::-1]), case


def test_size_and_rate(clips: Path) -> None:
    for name in GENERATED:
        with Video(clips / name) as video:
            assert video.size == (barcode.HEIGHT, barcode.WIDTH)
            if name not in ("variable_rate.mp4", "no_pts.h264"):
                assert video.fps == pytest.approx(30, rel=0.01), name


@pytest.mark.parametrize("turned", [90, 180, -90])
def test_rotation_is_applied(tmp_path: Path, turned: int) -> None:
    path = barcode.write(tmp_path / "turned.mp4", range(8), turned=turned)
    with Video(path) as video:
        frames = video.frames([5, 2])
        assert video.size == frames.shape[1:3]
        assert video.size == ((128, 96) if turned % 180 else (96, 128))
        box = (10, 20, 30, 40)
        assert np.array_equal(video.frames([5], box), frames[:1, 10:40, 20:60])
    assert [barcode.read(np.rot90(frame, -turned // 90)) for frame in frames] == [5, 2]


def test_edit_list_hides_frames(tmp_path: Path) -> None:
    path = barcode.write(
        tmp_path / "edited.mp4",
        pts=lambda number: number - 10,
        options={"g": "30"},
        muxer={"avoid_negative_ts": "disabled"},
    )
    with Video(path) as video:
        assert len(video) == 50
        assert [barcode.read(frame) for frame in video.frames([49, 0, 31])] == [59, 10, 41]


def test_the_best_video_stream_is_read(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for stream, (height, width) in zip(streams, [(48, 64), (96, 128)], strict=True):
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for stream, count in zip(streams, (1, 6), strict=True):
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(np.zeros((stream.height, stream.width, 3), np.uint8))
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    with Video(path) as video:
        assert video.size == (96, 128)


def test_box_and_size(clips: Path) -> None:
    with Video(clips / "default.mp4") as video:
        whole = video.frames([7, 3, 7])
        for antialias in (True, False):
            expected = crop_and_resize(whole, (8, 16, 64, 72), (32, 40), antialias=antialias)
            got = video.frames([7, 3, 7], (8, 16, 64, 72), (32, 40), antialias=antialias)
            assert got.shape == (3, 32, 40, 3)
            assert np.array_equal(got, expected)
        with pytest.raises(ValueError, match="outside the 96x128 frame"):
            video.frames([0], box=(90, 0, 10, 10))


def test_indices_outside_are_an_error(clips: Path) -> None:
    with Video(clips / "default.mp4") as video:
        for index in (60, -1):
            with pytest.raises(IndexError, match=f"frame {index} is out of range; expected 0 to 59"):
                video.frames([3, index])
        with pytest.raises(ValueError, match="no frame"):
            video.frames([])


def test_only_what_is_needed_is_read_and_converted(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    converted: list[int] = []
    pictures, rgb = Video._pictures, UprightPixels.__call__

    def watch_pictures(self: Video, *args: set[int]) -> Iterator:
        for number, picture in pictures(self, *args):  # type: ignore[arg-type]
            decoded.append(number)
            yield number, picture

    def watch_rgb(self: UprightPixels, frame: av.VideoFrame) -> np.ndarray:
        converted.append(barcode.read(rgb(self, frame)))
        return rgb(self, frame)

    monkeypatch.setattr(Video, "_pictures", watch_pictures)
    monkeypatch.setattr(UprightPixels, "__call__", watch_rgb)
    with Video(clips / "keyframes.mp4") as video:  # a keyframe every 10 frames
        video.frames([52, 2, 33, 33])
    assert sorted(converted) == [2, 33, 52]
    assert len(decoded) < 18  # of 60, from 3 keyframes
    decoded.clear()
    with Video(clips / "one_keyframe.mp4") as video:
        video.frames([119])
    assert len(decoded) < 90  # most of the B-frames are never decoded


def test_packets_wrongly_marked_as_keyframes_are_detected(clips: Path, tmp_path: Path) -> None:
    def claim(number: int, packet: av.Packet) -> None:
        packet.is_keyframe = True

    for source in ("default.mp4", "mpeg4_b.avi"):
        path = barcode.remux(clips / source, tmp_path / f"lying{Path(source).suffix}", claim)
        for pattern in patterns(60):
            with Video(path) as video:
                assert [barcode.read(frame) for frame in video.frames(pattern)] == pattern


def test_a_pickled_video_opens_its_file_again(clips: Path) -> None:
    with Video(clips / "default.mp4") as video, pickle.loads(pickle.dumps(video)) as copy:
        assert np.array_equal(copy.frames([9]), video.frames([9]))


def read_codes(path: Path) -> list[int]:
    with Video(path) as video:
        return [barcode.read(frame) for frame in video.frames([41, 3])]


def test_workers_read_after_the_parent_has_decoded(clips: Path) -> None:
    path = clips / "default.mp4"
    with av.open(str(path)) as container, Video(path) as video:  # open with FFmpeg's own threads, meanwhile
        next(container.decode(video=0))
        video.frames([50])
        with multiprocessing.get_context("forkserver").Pool(2) as pool:
            assert pool.map_async(read_codes, [path] * 4, chunksize=1).get(timeout=60) == [[41, 3]] * 4


def damaged(clips: Path, folder: Path) -> dict[str, tuple[Path, str]]:
    """By name: a file that cannot be opened and what its error says."""
    whole = (clips / "default.mp4").read_bytes()
    contents = {
        "text.mp4": (b"this is no video\n" * 20, "cannot be opened as a video"),
        "empty.mp4": (b"", "the file is empty"),
        "no_moov.mp4": (whole[: len(whole) * 6 // 10], "cannot be opened as a video"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (folder / "directory.mp4").mkdir()
    return {name: (folder / name, message) for name, (_, message) in contents.items()} | {
        "sound": (folder / "sound.mp4", "has no video stream"),
        "directory": (folder / "directory.mp4", "is a directory"),
        "missing": (folder / "missing.mp4", "no such file"),
    }


def test_files_that_cannot_be_opened(clips: Path, tmp_path: Path) -> None:
    for path, message in damaged(clips, tmp_path).values():
        with pytest.raises(VideoError) as caught:
            Video(path)
        assert str(caught.value).startswith(f"{path}: {message}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("owner", "call"), [(sources, "Video"), (av, "open"), (video_module, "demux")])
def test_a_file_that_vanishes_while_it_is_opened(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: ModuleType, call: str
) -> None:
    """After it was seen, before FFmpeg opens it, and before its index is made."""
    path = tmp_path / "here.mp4"
    path.write_bytes((clips / "default.mp4").read_bytes())
    original = getattr(owner, call)

    def vanish(*args: object, **keywords: object) -> object:
        path.unlink(missing_ok=True)
        return original(*args, **keywords)

    monkeypatch.setattr(owner, call, vanish)
    with pytest.raises(VideoError, match=r"here\.mp4: no such file$"):
        sources.open_source(path)
    assert not path.exists()


def assert_cut_short(path: Path, listed: int) -> None:
    with Video(path) as video:
        there = len(video)
        assert 10 < there < listed
        frames = video.frames(range(there))
        assert [barcode.read(frame) for frame in frames] == list(range(there))
        with pytest.raises(VideoError, match=f"frame {listed - 1} cannot be read: the file lists {listed}"):
            video.frames([0, listed - 1])


def test_truncated_data_gives_the_frames_that_are_there(tmp_path: Path) -> None:
    path = barcode.write(tmp_path / "cut.mp4", options={"g": "30"}, muxer={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    assert_cut_short(path, 60)


def test_a_damaged_packet_spoils_its_gop_and_nothing_else(clips: Path, tmp_path: Path) -> None:
    source = clips / "keyframes.mp4"
    with av.open(str(source)) as container:
        victim = [packet for packet in container.demux(video=0) if packet.size][21]
    content = bytearray(source.read_bytes())
    # The packet after the third keyframe: all of its GOP refers to it.
    assert victim.pos is not None
    content[victim.pos : victim.pos + victim.size] = bytes(victim.size)
    path = tmp_path / "zeroed.mp4"
    path.write_bytes(content)
    with Video(path) as video:
        sound = [*range(21), *range(30, 60)]
        assert [barcode.read(frame) for frame in video.frames(sound)] == sound
        for index in (24, 29):
            with pytest.raises(VideoError, match=f"frame {index} does not decode"):
                video.frames([0, index, 59])
        assert barcode.read(video.frames([20])[0]) == 20


def tricky(*endings: str) -> list[Path]:
    return sorted(path for path in (SHARED / "tricky").glob("*") if not path.name.startswith(endings))


@needs_shared
def test_every_tricky_file(subtests: pytest.Subtests) -> None:
    fields = {
        "pix_interlaced_tff.mp4": lambda index: 2 * index,
        "time_editlist_preroll.mp4": lambda i: i + 17,
    }
    for path in tricky("README", "broken", "audio_only"):
        with subtests.test(path.name):
            truth = list(linear(path))
            code: Callable[[int], int] = fields.get(path.name, lambda index: index)
            for pattern in patterns(len(truth)):
                with Video(path) as video:
                    assert len(video) == len(truth)
                    frames = video.frames(pattern)
                assert np.array_equal(frames, np.stack([truth[index] for index in pattern])), pattern
                if path.name == "rotate_90.mp4":
                    frames = np.rot90(frames, -1, axes=(1, 2))
                assert [barcode.read(frame) for frame in frames] == [code(index) for index in pattern]


@needs_shared
def test_tricky_damaged_files() -> None:
    assert_cut_short(SHARED / "tricky" / "broken_mdat_cut60.mp4", 60)
    for name in ("broken_moov_missing.mp4", "broken_text.mp4", "broken_zero_byte.mp4", "audio_only.mp4"):
        path = SHARED / "tricky" / name
        with pytest.raises(VideoError, match=r"^[^\n]*$") as caught:
            Video(path)
        assert str(caught.value).startswith(f"{path}: ")
    with Video(SHARED / "decord_corrupted.mp4") as video:
        for index in range(29):
            video.frames([index])
        with pytest.raises(VideoError, match="frame 29 does not decode"):
            video.frames([29])


REAL = [path for path in sorted(SHARED.rglob("*.*")) if path.suffix in (".mp4", ".mkv", ".avi", ".mov")]
REAL = [path for path in REAL if path.parent.name != "tricky" and path.name != "decord_corrupted.mp4"]


@needs_shared
def test_real_clips_equal_a_linear_decode(subtests: pytest.Subtests) -> None:
    rng = random.Random(0)
    for path in REAL:
        with subtests.test(path.name), Video(path) as video:
            pattern = rng.choices(range(min(len(video), 90)), k=5)
            truth = {i: frame for i, frame in enumerate(linear(path, max(pattern))) if i in pattern}
            assert np.array_equal(video.frames(pattern), np.stack([truth[index] for index in pattern]))


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("path", REAL, ids=[path.name for path in REAL])
def test_real_clips_equal_a_linear_decode_everywhere(path: Path) -> None:
    truth = list(linear(path))
    with Video(path) as video:
        assert len(video) == len(truth)
        assert all(
            np.array_equal(video.frames([index])[0], truth[index]) for index in range(0, len(truth), 17)
        )
    assert_sets_equal(path, truth, 16)


@needs_shared
@pytest.mark.slow
def test_tricky_files_give_every_set_of_frames_asked_for(subtests: pytest.Subtests) -> None:
    """With those of the real clips, more than 1,000 random sets."""
    paths = tricky("README", "broken", "audio_only")
    assert 16 * (len(paths) + len(REAL)) > 1000
    for path in paths:
        with subtests.test(path.name):
            assert_sets_equal(path, list(linear(path)), 16)


def assert_sets_equal(path: Path, truth: list[np.ndarray], count: int) -> None:
    """Training and test clips of every sampler, and `count` random sets, from fresh and from open videos."""
    rng = np.random.default_rng(len(truth))
    samplers: list[ClipSampler] = [SegmentFrames(num_segments=number) for number in (3, 8)]
    samplers += [DenseClips(clip_len=n, frame_interval=i) for n, i in ((4, 16), (8, 8), (32, 2))]
    samplers += [PySlowFastClips(clip_len=8, frame_interval=8), TimedClips(clip_len=8, target_fps=10)]
    sets = []
    for sampler in samplers:
        for draws in (rng, None):
            rate = {"fps": 30.0} if isinstance(sampler, TimedSampler) else {}
            sets.append(sampler(len(truth), draws, **rate).reshape(-1))
    sets += [rng.integers(len(truth), size=rng.integers(1, 9)) for _ in range(count)]
    with Video(path) as opened:
        for number, indices in enumerate(sets):
            if number % 2:
                frames = opened.frames(indices)
            else:
                with Video(path) as fresh:
                    frames = fresh.frames(indices)
            assert all(np.array_equal(f, truth[i]) for f, i in zip(frames, indices, strict=True)), indices
    for seed in range(5):
        for pattern in patterns(len(truth), seed):
            with Video(path) as video:
                frames = video.frames(pattern)
            assert np.array_equal(frames, np.stack([truth[index] for index in pattern])), pattern


def test_times_of_a_file_whose_frame_rate_varies(tmp_path):
    """Frames 40 ms apart, then 200 ms apart; B-frames, so that they are decoded in another order."""
    times = [40 * i for i in range(20)] + [800 + 200 * i for i in range(20)]
    for suffix in (".mp4", ".mkv"):
        path = tmp_path / f"varying{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": "2", "b-adapt": "0"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            for number, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 6 * number, np.uint8), format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        with Video(path) as video:
            assert len(video) == 40
            found = [video.index_at(seconds) for seconds in (0, 0.04, 0.041, 0.76, 0.8, 1.0, 2.3, 99)]
            shown = [video.index_at(time / 1000) for time in times]
        assert found == [0, 1, 2, 19, 20, 21, 28, 40], suffix
        assert shown == list(range(40)), suffix


def test_walk_gives_the_times_of_the_packets(tmp_path):
    """The packet list of an MP4 file holds decoding times, which lack the times of the last frames."""
    times = np.cumsum([0, *range(40, 640, 20)])  # milliseconds: the frame rate falls
    path = tmp_path / "slower.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "x264-params": "b-adapt=0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times.tolist()):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with Video(path) as video:
        assert [round(1000 * seconds) for _, seconds, _ in video.walk()] == times.tolist()
        np.testing.assert_allclose(frame_times(video), times / 1000)


def test_damage_is_reported_if_and_only_if_a_requested_frame_needs_it(tmp_path):
    """A non-reference picture that is not requested may be damaged: no other picture depends on it."""
    path = tmp_path / "whole.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        options = {"bf": "2", "g": "60", "crf": "12", "x264-params": "b-adapt=0:b-pyramid=none:scenecut=0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(25):
            pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        # nal_ref_idc of the only unit of a packet; the first packet has further units.
        packets = [(p.pos or 0, p.size, bytes(p)[4] >> 5 == 0) for p in container.demux(video=0) if p.size]
    with Video(path) as video:
        expected = video.frames([24])
    assert sum(is_disposable for *_, is_disposable in packets) > 10
    for number, (position, size, is_disposable) in enumerate(packets[1:-3], start=1):
        data = bytearray(path.read_bytes())
        data[position + size // 2 : position + size] = bytes(size - size // 2)
        cut = tmp_path / f"{number}.mp4"
        cut.write_bytes(data)
        with Video(cut) as video:
            if is_disposable:
                assert (video.frames([24]) == expected).all()
            else:
                with pytest.raises(VideoError, match="frame 24 does not decode"):
                    video.frames([24])


def test_walk_gives_the_frames_of_a_linear_read(tiny):
    path = next((tiny / "val").rglob("*.mp4"))
    with Video(path) as video:
        walked = [(index, seconds, pixels.copy()) for index, seconds, pixels in video.walk()]
        assert [index for index, _, _ in walked] == list(range(16))
        assert walked[5][1] == pytest.approx(0.2)
        assert (np.stack([pixels for _, _, pixels in walked]) == video.frames(range(16))).all()
