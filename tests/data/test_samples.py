"""The table of clips."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmaction_lite.data.annotations.samples import PackedStrings, Samples, Segment, absolute, is_remote
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.tasks.multi_label import MultiLabel
from tests.data.test_loader import numbered
from tests.data.test_splits import listed, touch


def test_a_clip_of_several_classes_is_as_rare_as_its_rarest():
    labels, ends = np.array([0, 0, 0, 1, 0, 1, 2]), np.array([1, 2, 4, 4, 6, 7])
    samples = numbered(6, labels=labels, label_ends=ends)
    assert samples.counts().tolist() == [4, 2, 1, 0]
    weights = samples.draw_weights(1)
    assert weights is not None
    np.testing.assert_allclose(weights, [1 / 4, 1 / 4, 1 / 2, 1 / 4, 1 / 2, 1])
    targets = MultiLabel().targets(samples.labels, samples.label_counts(), len(samples.classes))
    assert targets.astype(int).tolist() == [
        MultiLabel().target(samples.labels_of(i), len(samples.classes)).tolist() for i in range(6)
    ]
    assert targets[3].sum() == 0


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


def table_of(labels, **fields):
    labels = np.array(labels, np.int64)
    count = fields.pop("count")
    paths = PackedStrings([f"{i}.mp4" for i in range(count)])
    return Samples(paths, labels, tuple("abcd"), root=Path(), source="memory", **fields)


def test_labels_are_stored_one_several_or_any_number_per_clip():
    one = table_of([2, 0, 2], count=3)
    assert [one.labels_of(i).tolist() for i in range(3)] == [[2], [0], [2]]
    assert one.label_counts().tolist() == [1, 1, 1]
    strata = one.strata()
    assert strata is not None
    assert strata.tolist() == [2, 0, 2]
    columns = table_of([0, 2, 1, 3, 0, 2], count=3, label_columns=("verb", "noun"))
    assert [columns.labels_of(i).tolist() for i in range(3)] == [[0, 2], [1, 3], [0, 2]]
    assert columns.label_counts().tolist() == [2, 2, 2]
    strata = columns.strata()
    assert strata is not None
    assert strata[0] == strata[2] != strata[1]
    weights = columns.draw_weights(1.0)
    assert weights is not None
    np.testing.assert_allclose(weights, [1 / 2, 1, 1 / 2])
    many = table_of([0, 1, 3], count=3, label_ends=np.array([2, 2, 3]), label_columns=("labels",))
    assert [many.labels_of(i).tolist() for i in range(3)] == [[0, 1], [], [3]]
    assert many.label_counts().tolist() == [2, 0, 1]
    assert many.strata() is None


def test_the_checksum_changes_with_every_column():
    table = table_of([0, 1, 2], count=3)
    others = [
        table_of([0, 1, 1], count=3),
        replace(table, classes=("a", "b", "c", "e")),
        replace(table, weights=np.ones(3)),
        replace(table, segments=np.ones((3, 2))),
        replace(table, label_ends=np.arange(3)),
    ]
    checksums = [samples.checksum() for samples in (table, *others)]
    assert len(set(checksums)) == len(checksums)
    assert table.checksum() == table_of([0, 1, 2], count=3).checksum()


def test_table_is_packed_and_survives_pickling(tmp_path):
    touch(tmp_path, *(f"train/é {i % 3}/動画 {i}.mp4" for i in range(30)))
    samples = read_split(tmp_path, "train")
    again = pickle.loads(pickle.dumps(samples))
    assert listed(again) == listed(samples)
    assert samples.paths[len(samples) - 1] == "é 2/動画 8.mp4"
    assert samples.counts().tolist() == [10, 10, 10]
    assert isinstance(samples.paths.bytes, np.ndarray)


def test_strata_depend_on_every_column():
    table = table_of([0, 2, 1, 2, 0, 3, 0, 2], count=4, label_columns=("verb", "noun"))
    strata = table.strata()
    assert strata is not None
    assert strata[0] == strata[3]
    assert len(set(strata.tolist())) == 3
