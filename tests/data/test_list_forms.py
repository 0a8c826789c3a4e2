from pathlib import Path

import pytest

from mmaction_lite.data.annotations.list_forms import Line, find_forms, is_there
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError
from tests.data.test_splits import listed, touch


def test_lines_without_numbers_need_no_decision(tmp_path):
    forms = find_forms(
        [Line(1, "a.mp4", "run", True), Line(2, "clip", "jump", False)], tmp_path / "l.txt", None
    )
    assert (forms.frame_numbers, forms.exact_frame_numbers, forms.notes) == (0, 0, [])
    assert forms.clip(Line(1, "a.mp4", "brush hair", True), Path("l.txt")).labels == "brush hair"
    assert not is_there("a.mp4", tmp_path)


def frames(samples):
    return [] if samples.segments is None else samples.segments.tolist()


def test_row_04_a_frame_folder_named_like_a_video(tmp_path):
    touch(tmp_path, "x.avi/1.jpg", "y.avi/1.jpg")
    (tmp_path / "train.txt").write_text("x.avi 12 0\ny.avi 12 1\n")
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("x.avi", "0"), ("y.avi", "1")]
    assert frames(samples) == [[0, 12], [0, 12]]
    (note,) = samples.notes
    assert "2 lines with several numbers are read as 'folder total_frames label'" in note


def test_row_04_a_range_of_frames_of_a_folder_named_like_a_video(tmp_path):
    touch(tmp_path, "x.avi/1.jpg")
    (tmp_path / "train.txt").write_text("x.avi 0 12 0\nx.avi 12 5 1\n")
    assert frames(read_split(tmp_path, "train")) == [[0, 12], [12, 17]]


@pytest.mark.parametrize("missing", [{0}, {1}, {0, 1, 2}, {3}, {0, 1, 2, 3}])
def test_row_11_missing_frame_folders_do_not_change_the_form(tmp_path, missing):
    touch(tmp_path, *(f"clips/{i}/1.jpg" for i in range(4) if i not in missing))
    (tmp_path / "train.txt").write_text("".join(f"clips/{i} {10 + i} {i % 2}\n" for i in range(4)))
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [(f"clips/{i}", str(i % 2)) for i in range(4)]
    assert frames(samples) == [[0, 10 + i] for i in range(4)]
    assert ("uncertain" in samples.notes[0]) == (len(missing) == 4)


def test_paths_with_spaces_that_end_in_numbers(tmp_path):
    touch(tmp_path, "clip 1/1.jpg", "clip 2/1.jpg")
    (tmp_path / "train.txt").write_text("clip 1 0\nclip 2 1\nclip 3 1\n")
    assert listed(read_split(tmp_path, "train")) == [("clip 1", "0"), ("clip 2", "1"), ("clip 3", "1")]
    (tmp_path / "train.txt").write_text("clip 1 12 0\nclip 2 12 1\nclip 3 12 1\n")
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("clip 1", "0"), ("clip 2", "1"), ("clip 3", "1")]
    assert frames(samples) == [[0, 12]] * 3


def test_videos_and_frame_folders_in_one_list(tmp_path):
    touch(tmp_path, "clips/b/1.jpg", "a.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 0\nclips/b 12 1\n")
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("a.mp4", "0"), ("clips/b", "1")]
    assert frames(samples) == [[0, float("inf")], [0, 12]]


def test_videos_with_a_frame_count(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 300 0\nb.mp4 250 1\n")
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("a.mp4", "0"), ("b.mp4", "1")]
    assert "'folder total_frames label'" in samples.notes[0]
    (tmp_path / "classes.txt").write_text("x\ny\n")
    (tmp_path / "train.txt").write_text("a.mp4 5 0\nb.mp4 1 1\n")
    assert listed(read_split(tmp_path, "train")) == [("a.mp4", "x"), ("b.mp4", "y")]


def test_several_labels_per_video_are_noted(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 0 2\nb.mp4 1\n")
    samples = read_split(tmp_path, "train")
    assert samples.label_columns == ("labels",)
    assert [samples.class_names(i) for i in range(2)] == [["0", "2"], ["1"]]
    assert "are read as 'path label label'" in samples.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "f 12 0\nf\t3 1\nclip 1 0\n",
            r"train\.txt:1: is 'folder total_frames label', and line 3 is 'path label'",
        ),
        ("f 12 0\ng 1\n", r"train\.txt:2: 'g 1' lacks a frame count"),
        ("x.avi 12 0\na.mp4 3 1\na.mp4 1\n", r"train\.txt:1: is a folder with several numbers, and line 2"),
        ("f 99999999999 0\n", r"train\.txt:1: frame number 99999999999 has 11 digits"),
        ("x.avi 1 2 3 0\n", r"train\.txt:1: has more than two numbers before the label"),
        ("x.avi 12 0\nx.avi 2 10 1\n", r"train\.txt:2: has 3 numbers, and other lines are 'folder total"),
    ],
)
def test_lines_that_contradict_each_other_are_an_error(tmp_path, text, message):
    touch(tmp_path, "f/1.jpg", "clip 1/1.jpg", "x.avi/1.jpg", "a.mp4")
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_split(tmp_path, "train")


def test_names_that_begin_with_a_number_sign(tmp_path):
    touch(tmp_path, "#a.mp4", "#b/1.jpg", "c.mp4")
    (tmp_path / "train.txt").write_text(
        "# a comment\n#a.mp4 run\n#b 12 jump\n#c.mp4 run\nc.mp4 #tag\n#\n", encoding="utf-8"
    )
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("#a.mp4", "run"), ("#b", "jump"), ("c.mp4", "#tag")]
    assert any("1 lines that begin with # are skipped, the first is line 4" in note for note in samples.notes)


def test_quoted_paths_keep_the_rest_of_the_line(tmp_path):
    (tmp_path / "train.txt").write_text(
        '"a b.mp4" don\'t  run\n"c \\"d\\".mp4" "brush hair"\n"clip" two words\n'
    )
    assert listed(read_split(tmp_path, "train")) == [
        ("a b.mp4", "don't  run"),
        ('c "d".mp4', "brush hair"),
        ("clip", "two words"),
    ]
