"""Capture of files and streams: order, dropped frames, reconnects, time limits."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mmaction_lite.data.sources import capture as capture_module
from mmaction_lite.data.sources.capture import Capture, LiveFrame, measured_rate
from mmaction_lite.data.sources.live import CaptureSettings
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import UserError, VideoError
from tests.data.stream_server import FRAMES, encoded, serving

pytestmark = pytest.mark.usefixtures("short_pauses")


def frames_of(capture: Capture) -> Iterator[LiveFrame]:
    with capture:
        while not capture.is_over:
            if (frame := capture.next_frame(0.05)) is not None:
                yield frame


def test_a_file_gives_its_frames_and_times(transport):
    capture = Capture(transport, CaptureSettings(speed=0, queue_frames=4))
    with Video(transport) as video:
        whole = video.frames(range(FRAMES))
    for number, frame in enumerate(frames_of(capture)):
        assert (frame.part, frame.number, frame.fps) == (0, number, 25)
        assert frame.seconds == frame.part_seconds == pytest.approx(number / 25)
        np.testing.assert_array_equal(capture.pixels(frame), whole[number])
    assert capture.counts.frames == FRAMES
    assert capture.counts.dropped == 0
    assert capture.counts.most_waiting <= 4


def test_a_file_plays_in_real_time(transport):
    begin = time.monotonic()
    frames = list(frames_of(Capture(transport, CaptureSettings(speed=8))))
    assert 2 / 8 - 1 / 25 <= time.monotonic() - begin < 2
    for frame in frames:
        assert frame.arrival - begin >= frame.seconds / 8


def test_the_oldest_frame_is_dropped(transport):
    capture = Capture(transport, CaptureSettings(speed=200, queue_frames=5))
    with capture:
        capture._thread.join(10)  # nothing is taken from the queue
        assert capture.waiting == capture.counts.most_waiting == 5
        assert capture.counts.dropped == FRAMES - 5
        found = [capture.next_frame(0) for _ in range(5)]
        assert [frame.number for frame in found if frame] == list(range(FRAMES - 5, FRAMES))
        assert capture.next_frame(0) is None
        assert capture.is_over


def test_the_bytes_of_the_queue_are_limited(transport, monkeypatch):
    monkeypatch.setattr(capture_module, "QUEUE_BYTES", 3 * 48 * 64 * 3)
    with Capture(transport, CaptureSettings(speed=200)) as capture:
        capture._thread.join(10)
        assert capture.waiting == 3


def test_a_loop_begins_a_part_and_time_continues(transport):
    capture = Capture(transport, CaptureSettings(speed=0, loop=True))
    with capture:
        frames = [capture.next_frame(5) for _ in range(2 * FRAMES + 1)]
    last = frames[-1]
    assert last is not None
    assert (last.part, last.before, last.number) == (2, "end", 0)
    assert last.seconds == pytest.approx(4.0)
    assert capture.is_over  # it was closed


def test_a_stream_equals_its_file_and_ends_with_the_recording(transport):
    data = transport.read_bytes()
    with Video(transport) as video:
        whole = video.frames(range(FRAMES))
    with serving(lambda _, send: send(data), length=len(data)) as server:
        capture = Capture(server.address, CaptureSettings(speed=0))
        for number, frame in enumerate(frames_of(capture)):
            assert frame.part_seconds == pytest.approx(number / 25)
            np.testing.assert_array_equal(capture.pixels(frame), whole[number])
    assert capture.counts.frames == FRAMES
    assert server.connections == 1


def test_a_cut_connection_is_opened_again(transport):
    data = transport.read_bytes()
    with serving(lambda number, send: send(data[: len(data) // 2])) as server:
        capture = Capture(server.address, CaptureSettings(speed=20, retries=3))
        frames: list[LiveFrame] = []
        with pytest.raises(VideoError, match=r"connection lost \(.*\), 3 attempts to connect again; check"):
            frames.extend(frames_of(capture))
    parts: dict[int, LiveFrame] = {}
    for frame in frames:
        parts.setdefault(frame.part, frame)
    assert sorted(parts) == [0, 1, 2, 3]
    assert [frame.before for frame in parts.values()] == ["start", "loss", "loss", "loss"]
    assert all(frame.number == frame.part_seconds == 0 for frame in parts.values())
    seconds = [frame.seconds for frame in parts.values()]
    assert seconds == sorted(seconds)
    assert capture.counts.reconnects == 3
    notes = [capture.notes.get() for _ in range(capture.notes.qsize())]
    assert len(notes) == 6
    assert "connection lost (" in notes[0]
    assert "connected again after " in notes[1]


def test_a_stream_that_becomes_silent_is_lost(transport):
    data = transport.read_bytes()

    def serve(_: int, send: Callable[[bytes], None]) -> None:
        send(data)
        server.stopped.wait(5)

    with serving(serve) as server:
        capture = Capture(server.address, CaptureSettings(speed=50, timeout=0.4, retries=0))
        begin = time.monotonic()
        with pytest.raises(VideoError, match=r"connection lost \(no data within 0\.4 s\), 0 attempts"):
            list(frames_of(capture))
        assert time.monotonic() - begin < 4
    assert capture.counts.frames > FRAMES // 2


def test_a_stream_without_time_stamps_counts_arrivals(tmp_path):
    images = encoded(tmp_path / "clip.mjpeg", "mjpeg", "mjpeg").split(b"\xff\xd8")[1:]

    def serve(_: int, send: Callable[[bytes], None]) -> None:
        for image in images[:12]:
            picture = b"\xff\xd8" + image
            header = b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
            send(header + picture + b"\r\n")
            time.sleep(0.01)

    def capture(**settings: float) -> list[LiveFrame]:
        found: list[LiveFrame] = []
        with (
            serving(serve, "multipart/x-mixed-replace;boundary=x") as server,
            pytest.raises(VideoError, match="connection lost"),
        ):
            found.extend(frames_of(Capture(server.address, CaptureSettings(retries=0, **settings))))  # type: ignore[arg-type]
        return found

    measured = capture()
    assert len(measured) == 12
    assert 20 < measured[0].fps < 110
    for frame in measured[1:]:
        assert frame.part_seconds == pytest.approx(frame.arrival - measured[0].arrival, abs=0.02)
    given = capture(fps=10)
    assert [frame.part_seconds for frame in given] == pytest.approx([i / 10 for i in range(12)])


def test_the_rate_is_measured():
    assert measured_rate([1.0, 1.1, 1.2]) == pytest.approx(10)
    assert measured_rate([1.0, 1.0]) == measured_rate([1.0]) == 25


def test_closing_does_not_wait_for_a_silent_server(transport):
    data = transport.read_bytes()

    def serve(_: int, send: Callable[[bytes], None]) -> None:
        send(data)
        server.stopped.wait(3)

    with serving(serve) as server:
        begin = time.monotonic()
        with Capture(server.address, CaptureSettings(timeout=2.0)) as capture:
            assert capture.next_frame(5) is not None
        assert time.monotonic() - begin < 2
        assert capture.next_frame(0) is None


def test_settings_that_do_not_fit_the_source(transport):
    for source, settings, message in [
        ("rtsp://cam/x", CaptureSettings(loop=True), "only a file can be played in a loop"),
        ("0", CaptureSettings(speed=2), "a camera has one speed"),
        (transport, CaptureSettings(size=(8, 8)), "only a camera has a --size"),
        ("rtsp://cam/x", CaptureSettings(speed=2), "a live stream has one speed"),
    ]:
        with pytest.raises(UserError, match=message):
            Capture(source, settings)


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    for path, message in [
        (tmp_path / "gone.mp4", "gone.mp4"),
        (tmp_path / "bad.mp4", "cannot be opened as a video"),
    ]:
        with pytest.raises(VideoError, match=message):
            list(frames_of(Capture(path)))
