from pathlib import Path

import pytest

from mmaction_lite.data.annotations.classes import class_prefix
from mmaction_lite.data.annotations.labels import is_numeric, resolve_labels
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError


def test_labels_become_indices(tmp_path):
    found = resolve_labels(tmp_path / "a.txt", ("label",), ["b", "a", "b"], [1, 2, 3], classes=None)
    assert found.classes == ("a", "b")
    assert found.indices.tolist() == [1, 0, 1]
    found = resolve_labels(Path("a.txt"), ("label",), ["b", "a"], [1, 2], classes=("b", "c", "a"))
    assert found.classes == ("b", "c", "a")
    assert found.indices.tolist() == [0, 2]


def test_each_column_has_its_own_names():
    columns = ("verb", "noun")
    labels = ["cut", "cut", "open", "door"]
    found = resolve_labels(Path("a.csv"), columns, labels, [2, 2, 3, 3], classes=None)
    names = found.classes
    assert names == ("verb: cut", "verb: open", "noun: cut", "noun: door")
    assert found.indices.tolist() == [0, 2, 1, 3]
    assert class_prefix("label", ("label",)) == ""
    with pytest.raises(UserError, match=r"a\.csv:3: class 'door' is not among the 1 known classes"):
        resolve_labels(Path("a.csv"), columns, labels, [2, 2, 3, 3], classes=(*names[:2], "noun: cut"))


def read(tmp_path, labels, classes=None, listed=None):
    """Class names of the labels of a list, and the notes."""
    (tmp_path / "train.txt").write_text("".join(f"{i}.mp4 {label}\n" for i, label in enumerate(labels)))
    if listed is not None:
        (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in listed))
    samples = read_split(tmp_path / "train.txt", "train", classes)
    return [samples.class_names(i)[0] for i in range(len(samples))], samples.classes, samples.notes


FOLDERS = tuple(sorted(map(str, range(12))))
PADDED = tuple(f"{i:02}" for i in range(1, 13))


def test_row_01_labels_of_classes_named_by_numbers_are_names(tmp_path):
    """A network trained on folders 0 to 11, whose classes are in the order of text, and a list `path "
    "label`."""
    labels = [str(i) for i in range(12)]
    assert read(tmp_path, labels, classes=FOLDERS)[0] == labels
    assert read(tmp_path, PADDED, classes=PADDED)[0] == list(PADDED)
    assert read(tmp_path, [str(i) for i in range(1, 13)], classes=PADDED)[0] == list(PADDED)
    assert read(tmp_path, PADDED)[:2] == (list(PADDED), PADDED)
    assert read(tmp_path, ["11", "2"], classes=FOLDERS, listed=FOLDERS)[0] == ["11", "2"]
    assert read(tmp_path, ["11", "2"], listed=FOLDERS)[0] == ["11", "2"]


def test_numbers_are_indices_of_classes_with_other_names(tmp_path):
    assert read(tmp_path, ["0", "1"], classes=("b", "a"))[0] == ["b", "a"]
    assert read(tmp_path, ["00", "01"], classes=("b", "a"))[0] == ["b", "a"]
    assert read(tmp_path, ["0", "2"], classes=("101", "205", "309"))[0] == ["101", "309"]
    assert read(tmp_path, ["0", "2"])[1] == ("0", "1", "2")


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (
            ["2", "1"],
            ("jump", "2", "1"),
            r"train\.txt:2: label 1 may be the class of this name or class number 1",
        ),
        (["0", "1"], PADDED, r"train\.txt:1: class '0' is not among the 12 known classes"),
        (["12"], FOLDERS, r"train\.txt:1: class '12' is not among the 12 known classes"),
        (["3", "1", "2"], ("0", "1", "2"), r"train\.txt:1: labels run from 1 to 3 .* seem to count from 1"),
        (["-1", "0"], None, r"train\.txt:1: label '-1' is neither a class name nor a number"),
        (["1.0", "2.0"], None, r"train\.txt:1: label '1\.0' is neither"),
        (["+1", "2"], None, r"train\.txt:1: label '\+1' is neither"),
        (["run", "-1"], None, r"train\.txt:2: label '-1' is neither"),
        (["1_000", "2"], None, r"train\.txt:1: label '1_000' is neither"),
        (["1e3", "2"], None, r"train\.txt:1: label '1e3' is neither"),
        (["¹", "2"], None, r"train\.txt:1: label '¹' is neither"),
        (["1", "٣"], None, r"train\.txt:2: label '٣' is neither"),
        (["9" * 5000, "1"], None, r"train\.txt:1: label 9+… is out of range"),
        (["99999999", "1"], None, r"train\.txt:1: label 99999999 is out of range: there are at most 100000"),
    ],
)
def test_ambiguous_labels_are_an_error_with_the_line(tmp_path, labels, classes, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, labels, classes)


def test_names_that_look_like_numbers_are_read_if_they_are_known(tmp_path):
    assert read(tmp_path, ["-1", "+1"], classes=("+1", "-1"))[0] == ["-1", "+1"]
    assert read(tmp_path, ["1.5"], listed=("1.5", "x"))[0] == ["1.5"]
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "train.csv").write_text("path,class\na.mp4,-1\nb.mp4,03\nc.mp4,3\n")
    samples = read_split(tmp_path / "train.csv", "train")
    assert samples.classes == ("-1", "03", "3")
    assert samples.label_columns == ("label",)


def test_labels_that_count_from_1_without_class_names_are_noted(tmp_path):
    _, classes, (note,) = read(tmp_path, ["1", "2", "3"])
    assert classes == ("0", "1", "2", "3")
    assert "run from 1 to 3, and there are 4 classes" in note
    assert read(tmp_path, ["0", "2", "3"])[2] == ()


def test_numbers_among_names_are_noted(tmp_path):
    assert "1 of these 2 names are numbers, such as 3" in read(tmp_path, ["run", "3"])[2][0]
    assert is_numeric("03")
    assert not is_numeric("nan")


def test_classes_of_other_columns_are_an_error(tmp_path):
    (tmp_path / "classes.txt").write_text("open\nclose\n")
    (tmp_path / "train.csv").write_text("path,verb,noun\na.mp4,open,door\n")
    with pytest.raises(
        UserError, match=r"classes\.txt: class 'open' belongs to none of the columns verb and noun"
    ):
        read_split(tmp_path / "train.csv", "train")


def test_row_19_class_names_are_the_same_in_both_normal_forms(tmp_path):
    nfd = "U\u0308bung"
    assert read(tmp_path, [nfd, "run"], classes=("run", "Übung"))[0] == ["Übung", "run"]
    assert read(tmp_path, ["Übung"], classes=("run", nfd))[0] == [nfd]
    assert read(tmp_path, ["Übung", nfd])[1] == ("Übung",)
