"""Everything that a user may pass as a video is opened as one source, or refused with one line."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaction_lite.data.sources.source import open_source
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.inference.inputs import as_path, expand, is_one, name_of, open_input
from tests.conftest import brightening


@pytest.fixture
def clip(tiny):
    return tiny / "val" / "up" / "12.mp4"


def read(video):
    with open_input(video, name_of(video, 0)) as source:
        return source.frames(range(len(source)))


def test_contents_and_file_objects_equal_the_file(clip):
    expected, content = read(clip), clip.read_bytes()
    with clip.open("rb") as file:
        videos = [str(clip), content, bytearray(content), memoryview(content), io.BytesIO(content), file]
        for video in videos:
            np.testing.assert_array_equal(read(video), expected)
            assert is_one(video)
        assert file.tell() == 0  # so that the same object can be read again
        np.testing.assert_array_equal(read(file), expected)
    with open_source(clip) as source:
        assert is_one(source)
        np.testing.assert_array_equal(read(source), expected)


def test_arrays_and_tensors_may_have_the_channels_in_two_places():
    pixels = brightening(0)
    for video in (pixels, torch.from_numpy(pixels), pixels.transpose(0, 3, 1, 2)):
        np.testing.assert_array_equal(read(video), pixels)
        assert is_one(video)
    np.testing.assert_array_equal(read(torch.from_numpy(pixels).permute(0, 3, 1, 2)), pixels)


@pytest.mark.parametrize(
    ("shape", "dtype", "phrase"),
    [
        ((4, 3, 8, 3), torch.uint8, "both dimension 1 and dimension 3 may be the channels"),
        ((2, 4, 8, 8, 3), torch.uint8, "Pass several videos as a list"),
        ((8, 8, 3), torch.uint8, "Join the frames of a video with numpy.stack"),
        ((3, 4, 8, 8), torch.uint8, r"pixels are uint8 \(3, 4, 8, 8\); expected uint8 \(length"),
        ((0, 8, 8, 3), torch.uint8, "pixels are uint8"),
        ((4, 8, 8, 4), torch.uint8, "pixels are uint8"),
        ((4, 8, 8, 3), torch.bfloat16, "pixels are bfloat16.* Pass the values 0 to 255"),
    ],
)
def test_other_arrays_are_refused(shape, dtype, phrase):
    with pytest.raises(UserError, match=phrase):
        read(torch.zeros(shape, dtype=dtype))


def test_other_objects_are_refused(clip):
    with pytest.raises(UserError, match="is of type int; expected a path"):
        read(3)
    with clip.open("rb") as file:
        file.read()
        with pytest.raises(VideoError, match=r"is at its end; call seek\(0\)"):
            read(file)
    with pytest.raises(UserError, match="open in text mode"):
        read(io.StringIO("text"))
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(VideoError, match="closed file"):
        read(closed)
    with pytest.raises(VideoError, match=r"bytes 0: the file is empty \(0 bytes\)"):
        read(b"")
    for damaged in (b"not a video", clip.read_bytes()[:200]):
        with pytest.raises(VideoError, match=r"^bytes 0: "):
            read(damaged)
    with pytest.raises(UserError, match="a path is empty"):
        read("")


def test_folders_and_patterns_stand_for_their_clips(tiny, clip):
    found = list(expand([tiny / "val", str(tiny / "val" / "up" / "*.mp4"), clip, clip, b"x"]))
    folders = sorted((tiny / "val").rglob("*.mp4"))
    assert sorted(map(str, found[:6])) == sorted(map(str, folders))
    assert found[9:] == [clip, clip, b"x"]
    with pytest.raises(UserError, match="no clip matches this pattern; expected videos"):
        list(expand([str(tiny / "*.avi")]))


def test_a_home_folder_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_path("~/a.mp4") == tmp_path / "a.mp4"
    assert as_path(Path("a.mp4")) == Path("a.mp4")


def test_names_identify_inputs():
    assert name_of("https://host/a.mp4", 1) == "https://host/a.mp4"
    assert name_of(np.zeros(1), 3) == "array 3"
    assert name_of(io.BytesIO(), 4) == "video 4"
    assert not is_one(["a.mp4"])
