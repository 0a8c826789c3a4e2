import pickle

import numpy as np
import pytest

from mmaction_lite.data.annotations import mirrored_classes, read_split
from mmaction_lite.errors import UserError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def listed(samples):
    return [(samples.paths[i], samples.classes[samples.labels[i]]) for i in range(len(samples))]


def test_class_folders_with_splits(tmp_path):
    touch(
        tmp_path,
        "train/run/b.mp4",
        "train/run/a.AVI",
        "train/jump/c/00001.jpg",
        "val/run/x.webm",
        "train/run/n.txt",
    )
    train = read_split(tmp_path, "train")
    assert listed(train) == [("jump/c", "jump"), ("run/a.AVI", "run"), ("run/b.mp4", "run")]
    assert train.path(1) == tmp_path / "train" / "run" / "a.AVI"
    val = read_split(tmp_path, "val", train.classes)
    assert val.classes == ("jump", "run")  # a class missing from val keeps its index
    assert val.labels.tolist() == [1]
    assert listed(read_split(tmp_path, "test", train.classes)) == listed(val)


def test_class_folders_without_splits_hold_out_a_fifth_of_every_class(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in ("a", "b") for i in range(10)), "c/0.mp4", "c/1.mp4")
    train, val = (listed(read_split(tmp_path, split)) for split in ("train", "val"))
    assert sorted(train + val) == sorted(
        [(f"{name}/{i}.mp4", name) for name in ("a", "b") for i in range(10)]
        + [("c/0.mp4", "c"), ("c/1.mp4", "c")]
    )
    assert [sum(name == wanted for _, name in val) for wanted in "abc"] == [2, 2, 1]
    assert "every fifth" in read_split(tmp_path, "val").source


def test_list_files_take_numbers_names_spaces_and_quotes(tmp_path):
    (tmp_path / "train.txt").write_text('# a comment\nmy clips/a 1.mp4 1\n\n"b  2.mp4" 0\n')
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("my clips/a 1.mp4", "1"), ("b  2.mp4", "0")]
    (tmp_path / "classes.txt").write_text("run\njump\n")
    assert listed(read_split(tmp_path, "train")) == [("my clips/a 1.mp4", "jump"), ("b  2.mp4", "run")]
    (tmp_path / "val.txt").write_text("a.mp4 run\nb.mp4 jump\n")
    assert read_split(tmp_path, "val", ("run", "jump")).labels.tolist() == [0, 1]


def test_tables_with_a_header(tmp_path):
    (tmp_path / "train.csv").write_text('label,path,note\nbrush hair,"a, b.mp4",x\njump,my clips/c.mp4,\n')
    assert listed(read_split(tmp_path, "train")) == [("a, b.mp4", "brush hair"), ("my clips/c.mp4", "jump")]
    (tmp_path / "val.tsv").write_text("path\tlabel\nd.mp4\tjump\n")
    assert read_split(tmp_path, "val", ("brush hair", "jump")).labels.tolist() == [1]
    (tmp_path / "train.txt").write_text('"a.mp4" brush hair\n')
    assert listed(read_split(tmp_path, "train")) == [("a.mp4", "brush hair")]


def test_numbers_mean_the_names_of_classes_txt(tmp_path):
    """Also when the classes are those of weights that have them in another order."""
    (tmp_path / "classes.txt").write_text("up\ndown\n")
    (tmp_path / "val.txt").write_text("a.mp4 0\nb.mp4 1\n")
    assert read_split(tmp_path, "val", ("down", "up")).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match=r"val\.txt:1: class 'up' is not among the 2 known classes"):
        read_split(tmp_path, "val", ("run", "jump"))


def test_mirrored_classes_change_sides():
    classes = ("turn left", "swipe_right", "jump", "turn right", "swipe_left", "leftover")
    assert mirrored_classes(classes).tolist() == [3, 4, 2, 0, 1, 5]
    assert mirrored_classes(("rotate_clockwise", "rotate_counterclockwise")).tolist() == [1, 0]
    with pytest.raises(UserError, match=r"'Turn left' mirrored would be 'Turn right', .*train\.flip=0"):
        mirrored_classes(("Turn left", "jump"))


def test_list_of_frame_folders(tmp_path):
    touch(tmp_path, "clips/a b/00001.jpg", "clips/c/00001.jpg")
    (tmp_path / "train.txt").write_text("clips/a b 64 0\nclips/c 12 1\n")
    assert listed(read_split(tmp_path, "train")) == [("clips/a b", "0"), ("clips/c", "1")]


def test_table_is_packed_and_survives_pickling(tmp_path):
    touch(tmp_path, *(f"train/é {i % 3}/動画 {i}.mp4" for i in range(30)))
    samples = read_split(tmp_path, "train")
    again = pickle.loads(pickle.dumps(samples))
    assert listed(again) == listed(samples)
    assert samples.paths[len(samples) - 1] == "é 2/動画 8.mp4"
    assert samples.counts().tolist() == [10, 10, 10]
    assert isinstance(samples.paths.bytes, np.ndarray)


@pytest.mark.parametrize(
    ("files", "classes", "message"),
    [
        ({}, None, "found no clips; expected <class>/"),
        ({"train.txt": ""}, None, "train.txt: has no samples"),
        ({"train.txt": "only-a-path\n"}, None, "train.txt:1: 'only-a-path' has no label"),
        (
            {"train.txt": "a.mp4 0\nb.mp4 7\n", "classes.txt": "x\ny\n"},
            None,
            r"train.txt:2: label 7 is out of range",
        ),
        (
            {"train.txt": "a.mp4 run\nb.mp4 jmup\n"},
            ("run", "jump"),
            r"train.txt:2: class 'jmup' .* nearest: jump",
        ),
        ({"train.txt": '"a.mp4 0\n'}, None, "train.txt:1: .*No closing quotation"),
        ({"val.txt": "a.mp4 0\n"}, None, "has no train split; add"),
        (
            {"train.csv": "file,label\na.mp4,run\n"},
            None,
            r"train.csv:1: the header names \['file', 'label'\]",
        ),
        ({"train.csv": "path,label\na.mp4,\n"}, None, r"train.csv:2: lacks a path or a label"),
        ({"train.txt": "a.mp4 99999999999999999999\n"}, None, r"train.txt:1: label 9+ is out of range"),
        ({"train/swim/a.mp4": ""}, ("run",), "swim: class 'swim' is not among the 1 known classes"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, files, classes, message):
    for name, text in files.items():
        touch(tmp_path, name)
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_split(tmp_path, "train", classes)
    assert "\n" not in str(caught.value)


def test_nothing_to_hold_out_is_said(tmp_path):
    touch(tmp_path, "run/a.mp4", "jump/b.mp4")
    with pytest.raises(UserError, match="no class has two clips, so none can be held out"):
        read_split(tmp_path, "val")


def test_missing_data_is_said(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        read_split(tmp_path / "nowhere", "train")
    (tmp_path / "video.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not a UTF-8 text file"):
        read_split(tmp_path / "video.txt", "train")
