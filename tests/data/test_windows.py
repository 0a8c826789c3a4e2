"""Training windows have the class of the action at their center."""

import numpy as np
import pytest

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.sources.source import open_sample
from mmaction_lite.data.tools.windows import TrainingWindows, write_windows
from mmaction_lite.errors import UserError
from tests import barcode

HEADER = "path,label,start_seconds,end_seconds\n"


def run(data, out, **settings):
    return write_windows(data, out, TrainingWindows(**settings), lambda items, *_: items)


@pytest.fixture
def data(tmp_path):
    """A video of 8 s, for both splits: "up" from 1 to 3 s, "down" from 5 to 6 s."""
    folder = tmp_path / "long"
    folder.mkdir()
    barcode.write(folder / "a.mp4", range(240), options={"g": "60", "preset": "ultrafast"})
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text(f"{HEADER}a.mp4,up,1,3\na.mp4,down,5,6\n")
    return folder


def test_windows_have_the_class_at_their_center(data, tmp_path):
    found, faults = run(data, tmp_path / "out", seconds=2.0, stride=0.5, background_share=1.0)
    assert not faults
    assert sorted(found) == ["train", "val"]
    samples = read_split(tmp_path / "out", "train")
    assert samples.classes == ("down", "up", "background")
    assert samples.segments is not None
    starts = samples.segments[:, 0].tolist()
    # Centers at 1, 3, 5 and 6 s are borders.
    assert [(start, *samples.class_names(i)) for i, start in enumerate(starts)] == [
        (0.5, "up"), (1.0, "up"), (1.5, "up"),
        (2.5, "background"), (3.0, "background"), (3.5, "background"),
        (4.5, "down"), (5.5, "background"), (6.0, "background"),
    ]  # fmt: skip
    assert (np.diff(samples.segments) == 2).all()
    with open_sample(samples, 6) as source:
        assert [barcode.read(frame) for frame in source.frames([0, len(source) - 1])] == [135, 194]
    found, _ = run(data, tmp_path / "out", seconds=2.0, stride=0.5, background_share=1 / 3)
    assert np.bincount(found["train"].labels).tolist() == [1, 3, 2]


def test_no_background_windows_need_no_background_class(data, tmp_path):
    found, _ = run(data, tmp_path / "out", seconds=2.0, stride=0.5, background_share=0.0)
    assert found["train"].classes == ("down", "up")
    assert read_split(tmp_path / "out", "train").classes == ("down", "up")


def test_any_number_of_classes_needs_no_background_class(data, tmp_path):
    for split in ("train", "val"):
        rows = "a.mp4,up|down,1,3\na.mp4,up,5,6\n"
        (data / f"{split}.csv").write_text(HEADER.replace("label", "labels") + rows)
    found, _ = run(data, tmp_path / "out", seconds=2.0, stride=1.5, background_share=1.0)
    labels = [found["train"].class_names(i) for i in range(len(found["train"]))]
    assert labels == [["down", "up"], [], ["up"], []]  # centers 2.5, 4, 5.5 and 7 s; at 1 s is a border


def test_data_that_give_no_windows(data, tmp_path):
    with pytest.raises(UserError, match="no window has an action at its center"):
        run(data, tmp_path / "out", seconds=2.0, stride=3.0)
    (data / "val.csv").write_text(f"{HEADER}missing.mp4,up,1,3\na.mp4,up,1,3\n")
    _, faults = run(data, tmp_path / "out", seconds=2.0)
    assert len(faults) == 1
    assert "missing.mp4" in faults[0]
    (data / "val.csv").write_text(f"{HEADER}missing.mp4,up,1,3\nmissing.mp4,up,5,6\n")
    with pytest.raises(UserError, match=r"val.csv: none of 1 videos can be read; the first: .*missing.mp4"):
        run(data, tmp_path / "out", seconds=2.0)
    (tmp_path / "out" / "train.csv").write_text("mine")
    with pytest.raises(UserError, match="was changed"):
        run(data, tmp_path / "out", seconds=2.0)
    (data / "train.csv").write_text("path,label\na.mp4,up\n")
    with pytest.raises(UserError, match="does not say when the actions happen"):
        run(data, tmp_path / "new", seconds=2.0)
    with pytest.raises(UserError, match="background is empty"):
        TrainingWindows(background=" ")
