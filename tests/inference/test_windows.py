"""Windows of files and of streams: the clips that `predict` would read of the same segments."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mmaction_lite.data.annotations.samples import Segment
from mmaction_lite.data.sources.frames import Frames
from mmaction_lite.data.sources.sequential import frame_times
from mmaction_lite.data.sources.source import ArrayVideo, SegmentOf, open_source
from mmaction_lite.data.sources.video import Video
from mmaction_lite.data.views.crops import CenterCrop, FixedPlan, ThreeCrop
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import (
    ClipSampler,
    DenseClips,
    PySlowFastClips,
    SegmentFrames,
    TimedClips,
)
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.inference.windows import WindowBuffer, Windows, read_windows
from tests import barcode

SAMPLERS: dict[str, ClipSampler] = {
    "segments": SegmentFrames(num_segments=4),
    "dense": DenseClips(clip_len=4, frame_interval=3, num_clips=10),
    "timed": TimedClips(clip_len=4, target_fps=12.0, num_clips=2),
    "pyslowfast": PySlowFastClips(clip_len=4, frame_interval=4, num_clips=2),
}
SECONDS = {"segments": 2.5, "dense": 0.4, "timed": 4 / 12, "pyslowfast": 16 / 30}

CENTER = CenterCrop(size=(32, 32))


def protocol(
    clips: ClipSampler = SAMPLERS["segments"], short_side: int | None = 40, crop: FixedPlan = CENTER
):
    return Protocol(views=TestViews(clips=clips, crop=crop, short_side=short_side))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    barcode.write(folder / "even.mp4", range(130), options={"g": "25", "bf": "2"})
    barcode.write(
        folder / "open_gop.mp4", range(90), options={"x264-params": "open-gop=1:keyint=12:bframes=4"}
    )
    # 30 ms between the first frames, 970 ms between the last; a pause of ten seconds in between.
    barcode.write(
        folder / "uneven.mp4",
        range(60),
        pts=lambda n: 30 * n + 8 * n * n + (10_000 if n > 40 else 0),
        time_base=Fraction(1, 1000),
    )
    barcode.write(folder / "short.mp4", range(9))
    barcode.write(folder / "one_frame.mp4", range(1))
    return folder


def pushed(source, plan):
    buffer, done = WindowBuffer(plan), []
    pixels = source.frames(range(len(source)))
    for frame, seconds in zip(pixels, frame_times(source), strict=True):
        done += buffer.push(frame, float(seconds))
    return done + buffer.finish()


def check(source, plan):
    """Compare the windows of a file and of a stream with the segments; return them."""
    times = frame_times(source)
    windows = list(read_windows(source, plan))
    for window in windows:
        start, end = window.number * plan.stride, window.number * plan.stride + plan.seconds
        inside = np.flatnonzero((times >= start - 5e-4) & (times < end - 5e-4))
        assert (window.first_frame, window.end_frame) == (inside[0], inside[-1] + 1)
        segment = SegmentOf(source, Segment(window.first_frame, window.end_frame, True), "segment")
        np.testing.assert_array_equal(window.clips, plan.protocol.read(segment))
        assert window.start_seconds == start
        assert window.end_seconds == pytest.approx(min(end, times[-1] + 1 / source.fps))
    live = pushed(source, plan)
    assert len(live) == len(windows)
    for one, other in zip(live, windows, strict=True):
        assert one[:5] == other[:5]
        np.testing.assert_array_equal(one.clips, other.clips)
    return windows


@pytest.mark.parametrize("name", SAMPLERS)
def test_windows_equal_the_segments_bit_for_bit(name, videos):
    with Video(videos / "even.mp4") as source:
        plan = Windows(stride=0.37).plan(protocol(SAMPLERS[name], crop=ThreeCrop(size=(32, 32))), source.fps)
        assert plan.seconds == pytest.approx(SECONDS[name])
        windows = check(source, plan)
        assert [window.number for window in windows] == list(range(len(windows)))
        assert windows[-1].end_frame == len(source)
        assert windows[-2].end_frame < len(source)
        assert windows[0].clips.shape == (1, 4, 40, 53, 3)
        assert plan.protocol.num_views == 3


@pytest.mark.parametrize("name", ["open_gop.mp4", "uneven.mp4", "short.mp4", "one_frame.mp4"])
@pytest.mark.parametrize(("seconds", "stride"), [(0.5, 0.2), (1.0, 0.3501), (0.21, 0.9), (3.0, 1.0)])
def test_windows_of_unusual_videos_and_settings(name, seconds, stride, videos):
    with Video(videos / name) as source:
        for short_side in (40, None):
            plan = Windows(seconds=seconds, stride=stride).plan(protocol(short_side=short_side), source.fps)
            check(source, plan)


def test_windows_have_the_filter_of_the_views(videos):
    with Video(videos / "even.mp4") as source:
        views = replace(protocol().views, interpolation="bicubic", antialias=False)
        plan = Windows(stride=2.5).plan(Protocol(views=views), source.fps)
        windows = check(source, plan)
        bilinear = check(source, Windows(stride=2.5).plan(protocol(), source.fps))
    assert (windows[0].clips != bilinear[0].clips).any()


def test_windows_in_which_no_frame_begins_are_left_out(videos):
    with Video(videos / "uneven.mp4") as source:
        plan = Windows(seconds=0.5, stride=0.25).plan(protocol(), source.fps)
        numbers = [window.number for window in check(source, plan)]
    gaps = np.diff(numbers)
    assert gaps.max() > 30  # the pause
    assert (gaps == 1).sum() > 10


def test_the_last_window_is_the_first_one_that_reaches_the_end():
    pixels = np.zeros((20, 8, 8, 3), np.uint8)

    def bounds(length, stride, seconds=0.4):
        source = ArrayVideo(pixels[:length], fps=10.0)
        plan = Windows(seconds=seconds, stride=stride).plan(protocol(short_side=None), 10.0)
        return [(window.first_frame, window.end_frame) for window in check(source, plan)]

    assert bounds(8, 0.2) == [(0, 4), (2, 6), (4, 8)]
    assert bounds(9, 0.2) == [(0, 4), (2, 6), (4, 8), (6, 9)]
    assert bounds(3, 0.2) == [(0, 3)]
    assert bounds(9, 0.8) == [(0, 4), (8, 9)]  # stride longer than a window
    assert bounds(8, 0.8) == [(0, 4)]
    assert bounds(8, 0.25) == [(0, 4), (3, 7), (5, 8)]  # a stride of 2.5 frames


def test_frame_folders_need_a_frame_rate(tmp_path):
    from PIL import Image

    for number in range(12):
        Image.fromarray(barcode.draw(number)).save(tmp_path / f"{number:03d}.jpg")
    with Frames(tmp_path) as source:
        with pytest.raises(UserError, match="frame rate of the video is nan; pass the length"):
            Windows().plan(protocol(SAMPLERS["dense"]), source.fps)
        with pytest.raises(VideoError, match="has no times and no frame rate"):
            list(read_windows(source, Windows().plan(protocol(), source.fps)))
    with Frames(tmp_path, fps=10.0) as source:
        plan = Windows(seconds=0.5, stride=0.3).plan(protocol(), source.fps)
        found = [window.clips for window in read_windows(source, plan)]
        assert len(found) == 4
        for window in read_windows(source, plan):  # JPEG files are decoded at a reduced scale
            segment = SegmentOf(source, Segment(window.first_frame, window.end_frame, True), "segment")
            np.testing.assert_array_equal(window.clips, plan.protocol.read(segment))


def test_a_segment_of_a_video_has_windows(videos):
    with open_source(videos / "even.mp4") as whole:
        segment = SegmentOf(whole, Segment(31, 90, True), "segment")
        plan = Windows(seconds=1.0, stride=0.5).plan(protocol(), segment.fps)
        windows = check(segment, plan)
        assert barcode.read(next(read_windows(segment, replace_short_side(plan))).clips[0, 0]) == 31 + 3
        assert windows[-1].end_frame == 59


def replace_short_side(plan):
    return Windows(seconds=plan.seconds, stride=plan.stride).plan(protocol(short_side=None), plan.fps)


def test_every_frame_is_decoded_once(videos, monkeypatch):
    with Video(videos / "even.mp4") as source:
        plan = Windows(seconds=1.0, stride=0.1).plan(protocol(), source.fps)
        source.frames([0])
        decoded, pictures = [], source._pictures
        monkeypatch.setattr(
            source, "_pictures", lambda *given: (decoded.append(p[0]) or p for p in pictures(*given))
        )
        assert len(list(read_windows(source, plan))) == 35
        assert len(decoded) == len(set(decoded))
        assert len(decoded) <= len(source)


def test_reading_resumes_at_a_window(videos):
    with Video(videos / "even.mp4") as source:
        plan = Windows(seconds=1.0, stride=0.3).plan(protocol(), source.fps)
        windows = list(read_windows(source, plan))
        for first_number in (0, 5, len(windows) - 1, len(windows)):
            rest = list(read_windows(source, plan, first_number=first_number))
            assert [window[:5] for window in rest] == [window[:5] for window in windows[first_number:]]
            for one, other in zip(rest, windows[first_number:], strict=True):
                np.testing.assert_array_equal(one.clips, other.clips)


def test_frames_of_a_stream_may_change_their_size(videos):
    plan = Windows(seconds=0.4, stride=0.2).plan(protocol(), 10.0)
    buffer, done = WindowBuffer(plan), []
    for number in range(9):
        shape = (96, 128, 3) if number < 4 else (50, 70, 3)
        done += buffer.push(np.full(shape, number, np.uint8), number / 10)
    done += buffer.finish()
    assert [window.clips.shape for window in done] == [(1, 4, 40, 53, 3)] * 4
    assert (done[1].clips[0, :, 0, 0, 0] == [2, 3, 4, 5]).all()


def test_invalid_settings_and_times():
    with pytest.raises(UserError, match="stride is 0"):
        Windows(stride=0.0)
    with pytest.raises(UserError, match="seconds is -1"):
        Windows(seconds=-1.0)
    buffer = WindowBuffer(Windows().plan(protocol(), 10.0))
    buffer.push(np.zeros((8, 8, 3), np.uint8), 1.0)
    for seconds in (0.5, np.nan, np.inf):
        with pytest.raises(ValueError, match="expected a time of at least 1"):
            buffer.push(np.zeros((8, 8, 3), np.uint8), seconds)


def test_the_plan_line_names_protocol_and_windows():
    line = str(Windows(seconds=2.0, stride=0.5).plan(protocol(SAMPLERS["dense"]), 25.0))
    assert line.startswith("4x3x1 frames: 1 clip × 1 crop")
    assert line.endswith("; windows of 2 s every 0.5 s")
