"""Every exception that a video file causes becomes one VideoError."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from av.error import InvalidDataError

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


def test_numbers_of_a_damaged_header_give_no_warning() -> None:
    with warnings.catch_warnings(), reading_video("clip.mp4"):
        warnings.simplefilter("error")
        assert np.int64(2**62) * np.int64(4) == 0


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

    from mmaction_lite.data.sources import packets, video
    from mmaction_lite.data.sources.orientation import UprightPixels

    owner = {"demux": video, "_pictures": Video, "__call__": UprightPixels}.get(place, packets)
    monkeypatch.setattr(owner, place, fail)
    try:
        with sources.open_source(path) as opened:
            METHODS[method](opened)
    except VideoError as error:
        assert str(error).startswith(f"{path}: cannot be read (KeyError")  # noqa: PT017
