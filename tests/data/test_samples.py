"""The table of clips."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmaction_lite.data.annotations.samples import PackedStrings, Rows, Segment, absolute, is_remote
from tests.data.test_loader import numbered


def test_a_clip_of_several_classes_is_as_rare_as_its_rarest():
    labels, ends = np.array([0, 0, 0, 1, 0, 1, 2]), np.array([1, 2, 4, 4, 6, 7])
    samples = numbered(6, labels=labels, label_ends=ends)
    assert samples.counts().tolist() == [4, 2, 1, 0]
    weights = samples.draw_weights(1)
    assert weights is not None
    np.testing.assert_allclose(weights, [1 / 4, 1 / 4, 1 / 2, 1 / 4, 1 / 2, 1])
    assert samples.targets().astype(int).tolist() == [samples.target(i).tolist() for i in range(6)]
    assert samples.targets()[3].sum() == 0


def test_packed_strings_are_the_strings():
    strings = ["a b.mp4", "", "é/動画.mp4", "\udcff.mp4"]
    packed = pickle.loads(pickle.dumps(PackedStrings(strings)))
    assert len(packed) == 4
    assert [packed[i] for i in range(4)] == strings
    assert packed[-1] == strings[-1]
    assert packed.bytes.dtype == np.uint8


def test_urls_and_paths():
    assert is_remote("https://host/a.tar")
    assert is_remote(Path("s3://bucket/a.mp4"))  # Path leaves one slash
    assert not is_remote("C:/clips/a.mp4")
    assert not is_remote("clips/a.mp4")
    assert absolute(Path("s3://bucket/a.mp4")) == "s3://bucket/a.mp4"
    assert absolute("a.mp4") == str(Path("a.mp4").absolute())


def test_names_and_places_of_samples():
    samples = replace(
        numbered(2),
        root=Path("/clips"),
        segments=np.array([[0.5, 2.0], [3.0, 9.0]]),
        source="/lists/train.csv",
    )
    assert samples.segment(1) == Segment(3.0, 9.0, False)
    assert samples.name(0) == "/clips/0#t=0.5,2"
    assert samples.place(0) == samples.name(0)
    assert replace(samples, lines=np.array([2, 3])).place(1) == "/lists/train.csv:3"
    assert str(replace(samples, segments_in_frames=True).segment(0)) == "#frames=0.5,2"
    assert numbered(1).segment(0) is None


def test_rows_keep_one_or_several_classes():
    rows = Rows(Path("/lists/train.txt"))
    rows.add("a.mp4", "run", 1)
    assert not rows.is_multi_label
    rows.add("b.mp4", ["jump", "run"], 3, segment=(0.0, 1.0), weight=2.0)
    assert rows.is_multi_label
    assert (rows.labels, rows.label_ends, rows.lines) == (["run", "jump", "run"], [1, 3], [1, 3])
    assert (rows.root, len(rows)) == (Path("/lists"), 2)
    assert (rows.segments, rows.weights) == ([(0.0, 1.0)], [2.0])


@pytest.mark.parametrize(("balance", "expected"), [(0.0, None), (0.5, [0.5, 0.5, 0.5, 0.5, 1.0])])
def test_draw_weights_follow_the_number_of_clips(balance, expected):
    samples = numbered(5, labels=np.array([0, 0, 0, 0, 1]))
    weights = samples.draw_weights(balance)
    assert (weights is None) == (expected is None)
    if weights is not None:
        np.testing.assert_allclose(weights, expected)
    weighted = replace(samples, weights=np.arange(5.0))
    found = weighted.draw_weights(balance)
    assert found is not None
    np.testing.assert_allclose(found, np.arange(5) * (expected or 1.0))
