"""Every exception that a video file causes becomes one VideoError."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from av.error import InvalidDataError

from mmaction_lite.data.sources import packets, sequential
from mmaction_lite.data.sources import source as sources
from mmaction_lite.data.sources.faults import MispredictedError, StaleIndexError, reading_video
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import VideoError
from tests import barcode


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (IndexError("list index"), "clip.mp4: cannot be read (IndexError: list index); "),
        (InvalidDataError(1, "bad"), "clip.mp4: cannot be read"),
        (MemoryError(), "clip.mp4: cannot be read (MemoryError)"),
        (OSError(5, "Input/output error"), "clip.mp4: cannot be read (Input/output error)"),
        (FileNotFoundError(2, "No such file"), "clip.mp4: no such file"),
        (VideoError("clip.mp4: as it is"), "clip.mp4: as it is"),
        (ValueError("two\nlines"), "clip.mp4: cannot be read (ValueError: two lines)"),
    ],
)
def test_exceptions_of_a_file_become_one_error(cause: Exception, message: str) -> None:
    with pytest.raises(VideoError) as caught, reading_video("clip.mp4"):
        raise cause
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_numbers_of_a_damaged_header_give_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = barcode.write(tmp_path / f"clip{suffix}", range(3))
    computed = []

    def overflow(times: np.ndarray, stream: object) -> float:
        computed.append(np.int64(2**62) * np.int64(4))
        return 25.0

    monkeypatch.setattr(packets, "frame_rate", overflow)
    with Video(path) as video:  # a warning is an error in tests
        assert video.fps == 25.0
    assert computed == [0]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("read", [Video.walk, lambda video: sequential.read_in_order(video, np.arange(3))])
def test_a_reader_that_waits_leaves_the_settings_of_numpy_alone(
    tmp_path: Path, suffix: str, read: Callable[[Video], Iterator]
) -> None:
    before = np.geterr()
    with Video(barcode.write(tmp_path / f"clip{suffix}", range(3))) as video:
        frames = read(video)
        for _ in range(3):
            next(frames)
            assert np.geterr() == before
        assert not list(frames)
    assert np.geterr() == before


def test_programs_see_a_video_error() -> None:
    assert issubclass(StaleIndexError, MispredictedError)
    assert issubclass(MispredictedError, VideoError)


METHODS = {
    "open": lambda video: None,
    "length": len,
    "size": lambda video: video.size,
    "frames": lambda video: video.frames([0]),
    "box": lambda video: video.frames([0], (0, 0, 8, 8), (4, 4)),
    "walk": lambda video: list(video.walk()),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", ["listed_index", "scanned_index", "demux", "_pictures", "__call__"])
def test_any_exception_inside_any_method_is_a_video_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, method: str
) -> None:
    path = barcode.write(tmp_path / "clip.mkv", range(3))

    def fail(*_: object, **__: object) -> None:
        raise KeyError("a fault of the file")

    from mmaction_lite.data.sources import video
    from mmaction_lite.data.sources.orientation import UprightPixels

    owner = {"demux": video, "_pictures": Video, "__call__": UprightPixels}.get(place, packets)
    monkeypatch.setattr(owner, place, fail)
    try:
        with sources.open_source(path) as opened:
            METHODS[method](opened)
    except VideoError as error:
        assert str(error).startswith(f"{path}: cannot be read (KeyError")  # noqa: PT017
