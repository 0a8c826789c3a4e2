"""Annotated videos show the same frames upright at the same times, with their sound."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from mmaction_lite.data.sources.frames import Frames
from mmaction_lite.data.sources.source import ArrayVideo, open_source
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.inference.annotated_video import annotate_video, annotated_paths, check_annotated_out
from tests import barcode
from tests.conftest import brightening

TIME_BASE = Fraction(1, 600)


def write(path, *, turned=0, delay=0, audio="aac", size=(96, 128), codec="libx264", frames=12):
    """Write frames at the times n * n / 600 + delay, and a tone of a second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=30)
        assert isinstance(video, VideoStream)
        (video.height, video.width), video.pix_fmt = size, "yuv420p"
        video.codec_context.time_base = TIME_BASE
        if turned:
            video.set_display_rotation(turned)
        sound = container.add_stream(audio, rate=48000)
        assert isinstance(sound, AudioStream)
        for number in range(frames):
            pixels = np.ascontiguousarray(barcode.draw(number)[: size[0], : size[1]])
            frame = av.VideoFrame.from_ndarray(pixels)
            frame.pts, frame.time_base = number * number + delay, TIME_BASE
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for number in range(40):
            tone = (np.sin(np.arange(2048) * 0.05) * 8000).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, number * 1024, Fraction(1, 48000)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def packets(path, kind):
    """Return the sorted times in seconds and the contents of the packets of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        found = [packet for packet in container.demux(stream) if packet.size]
        return sorted(float(packet.pts * packet.time_base) for packet in found), list(map(bytes, found))


def interrupt(seconds):
    raise KeyboardInterrupt


def labels(seconds):
    return ["up 0.93", f"{seconds:.2f} s"]


@pytest.mark.parametrize(
    ("source", "out", "how"),
    [
        ("a.mp4", "b.mp4", {}),
        ("a.mov", "b.mov", {"turned": 90}),
        ("a.mp4", "b.mkv", {"delay": 300}),
        ("a.mp4", "b.mp4", {"delay": 300}),
        ("a.mkv", "b.mkv", {"audio": "flac"}),
    ],
)
def test_frames_times_and_sound_are_those_of_the_source(source, out, how, tmp_path):
    source, out = write(tmp_path / source, **how), tmp_path / out
    with open_source(source) as video:
        assert annotate_video(video, out, labels) == ""
        size = video.size
    with Video(out) as video:
        assert video.size == (3 * size[0], 3 * size[1])  # 96 pixels are enlarged to at least 240
        shown = video.frames(range(len(video)))
        assert len(shown) == 12
        bottom = shown[:, video.size[0] // 2 :: 3, ::3]
    with Video(source) as video:
        truth = video.frames(range(12))[:, size[0] // 2 :]
    assert abs(bottom.astype(int) - truth).mean() < 4
    (start, *_), _ = packets(source, "video")
    (shifted, *_), _ = packets(out, "video")
    assert 0 <= shifted - start <= (0.022 if out.suffix == ".mkv" else 1e-6)  # it has no negative times
    for kind in ("video", "audio"):
        (before, contents), (after, copied) = packets(source, kind), packets(out, kind)
        expected = np.add(before, shifted - start)
        np.testing.assert_allclose(after, expected, atol=1e-3 if out.suffix == ".mkv" else 1e-6)
        assert kind == "video" or copied == contents


def test_packets_are_read_once_for_their_times(tmp_path, monkeypatch):
    path, calls = write(tmp_path / "source.mp4"), []
    read = Video.presentation_times
    monkeypatch.setattr(Video, "presentation_times", lambda video: calls.append(video) or read(video))
    with open_source(path) as source:
        annotate_video(source, tmp_path / "out.mp4", lambda _: ())
        annotate_video(source, tmp_path / "again.mp4", lambda _: ())
    assert len(calls) == 1


def test_text_is_drawn_in_the_corner(tmp_path):
    frames = np.full((3, 240, 320, 3), 200, np.uint8)
    annotate_video(
        ArrayVideo(frames, 10.0), tmp_path / "a.mp4", lambda seconds: ["up 0.93"] * (seconds < 0.15)
    )
    with Video(tmp_path / "a.mp4") as video:
        assert video.fps == pytest.approx(10)
        first, second, last = video.frames(range(3)).astype(int)
    assert abs(first - second).max() < 30
    corner = first[:20, :60]
    assert corner.min() < 100
    assert corner.max() > 220
    assert abs(last - 200).max() < 10
    assert abs(first[:, 200:] - 200).max() < 10


def test_small_odd_and_long_labels(tmp_path):
    frames = np.full((2, 37, 55, 3), 90, np.uint8)
    text = ["long " * 40, "чтение 読書", "\x1b[31m", ""] * 10
    annotate_video(ArrayVideo(frames), tmp_path / "a.mkv", lambda seconds: text)
    with Video(tmp_path / "a.mkv") as video:
        assert video.size == (260, 386)
        assert len(video) == 2
    annotate_video(ArrayVideo(frames[:1]), tmp_path / "a.mkv", lambda seconds: [])  # replaces its own file
    with Video(tmp_path / "a.mkv") as video:
        assert len(video) == 1


def test_a_folder_of_frames_gets_the_default_rate(tmp_path):
    from PIL import Image

    for number, frame in enumerate(brightening(0, 4)):
        Image.fromarray(frame).save(tmp_path / f"{number}.jpg")
    with Frames(tmp_path) as source:
        annotate_video(source, tmp_path / "a.mp4", labels)
    with Video(tmp_path / "a.mp4") as video:
        assert (len(video), video.fps) == (4, pytest.approx(25))


def test_a_failure_leaves_no_file(tmp_path):
    path = write(tmp_path / "a.mp4", frames=60)
    content = bytearray(path.read_bytes())
    content[3000:6000] = bytes(3000)
    (tmp_path / "broken.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"broken\.mp4: "), open_source(tmp_path / "broken.mp4") as video:
        annotate_video(video, tmp_path / "b.mp4", labels)
    with pytest.raises(KeyboardInterrupt), open_source(path) as video:
        annotate_video(video, tmp_path / "b.mp4", interrupt)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "broken.mp4"]


def test_other_files_are_never_replaced(tmp_path, tiny):
    clip = tiny / "val" / "up" / "12.mp4"
    content = clip.read_bytes()
    with pytest.raises(UserError, match="exists and is not a video annotated by"):
        check_annotated_out(clip)
    with pytest.raises(UserError, match=r"expected a file name ending in \.mp4, \.mov, \.mkv"):
        check_annotated_out(tmp_path / "a.avi")
    assert clip.read_bytes() == content


def test_every_input_has_its_own_file(tmp_path):
    names = ["x/a.mp4", "y/a.avi", "z/a.mkv", "b", "https://host/c.mp4", "frames/img_*.jpg"]
    out = tmp_path / "new" / "folder"
    found = [path.name for path in annotated_paths(out, names)]
    assert found == ["a.mp4", "a-2.mp4", "a-3.mp4", "b.mp4", "c.mp4", "img_.mp4"]
    assert annotated_paths(tmp_path / "one.mp4", ["a.mp4"]) == [tmp_path / "one.mp4"]
    assert annotated_paths(tmp_path, ["a.mp4"]) == [tmp_path / "a.mp4"]
    with pytest.raises(UserError, match=r"one.mp4: is one file, and there are 2 videos; expected a folder"):
        annotated_paths(tmp_path / "one.mp4", ["a.mp4", "b.mp4"])


@pytest.mark.slow
def test_memory_does_not_depend_on_the_length(tmp_path):
    peaks = []
    for number, length in enumerate((40, 240)):
        path = write(tmp_path / f"{number}.mp4", frames=length)
        with open_source(path) as video:
            annotate_video(video, tmp_path / "warm.mp4", labels)
            tracemalloc.start()
            annotate_video(video, tmp_path / "out.mp4", labels)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 3_000_000
