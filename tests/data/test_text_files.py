import os

import pytest

from mmaction_lite.data.annotations import text_files
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.annotations.text_files import load_json, read_text, split_lines
from mmaction_lite.errors import UserError
from tests.data.test_splits import listed


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_without_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("Übung\r\n拍手\r\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "Übung\n拍手\n"


def test_concatenated_files_have_several_byte_order_marks(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffa\n\ufeffb\n".encode())
    assert read_text(tmp_path / "a.txt") == "a\nb\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", "a.mp4 walk\r\nb.mp4 run\r\n"),
        ("train.csv", "path,label\r\na.mp4,walk\r\nb.mp4,run\r\n"),
        ("train.csv", '"path","label"\na.mp4,walk\nb.mp4,run\n'),
        ("train.tsv", "path\tlabel\na.mp4\twalk\nb.mp4\trun\n"),
        ("train.jsonl", '{"path": "a.mp4", "label": "walk"}\n{"path": "b.mp4", "label": "run"}\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_row_10_a_byte_order_mark_is_ignored_in_every_format(tmp_path, name, text, encoding):
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert listed(read_split(tmp_path, "train")) == [("a.mp4", "walk"), ("b.mp4", "run")]


@pytest.mark.parametrize(
    ("name", "text", "label"),
    [
        ("trainlist01.txt", "Archery/v_g01.avi 1\r\n", "Archery"),
        ("train.csv", "label,youtube_id,time_start,time_end,split\nrun,a,0,10,train\n", "run"),
        ("Diving48_V2_train.json", '[{"vid_name": "v1", "label": "x"}]', "x"),
        ("jester-v1-train.csv", "5;Thumb Up\n", "Thumb Up"),
    ],
)
def test_row_10_a_byte_order_mark_is_ignored_in_published_files(tmp_path, name, text, label):
    (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
    assert read_split(tmp_path, "train").classes == (label,)


def test_other_encodings_are_an_error_with_the_line(tmp_path):
    (tmp_path / "a.txt").write_bytes("a\nÜbung\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.txt: is not a UTF-8 text file \(.* in line 2\)"):
        read_text(tmp_path / "a.txt")
    assert read_text(tmp_path / "a.txt", keeps_bytes=True) == "a\n\udcdcbung\n"


def test_only_line_feeds_end_a_line(tmp_path):
    text = "a\x0bb\x0cc\x1cd\x85e\u2028f\n g \n"
    assert split_lines(text, tmp_path) == ["a\x0bb\x0cc\x1cd\x85e\u2028f", " g "]
    assert split_lines("", tmp_path) == []


def test_named_pipes_and_folders_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(UserError, match="is not a regular file"):
        read_split(tmp_path / "pipe.txt", "train")
    for name in ("pipe.txt", "folder.txt"):
        with pytest.raises(UserError, match=name):
            read_text(tmp_path / name)
    os.mkfifo(tmp_path / "classes.txt")
    (tmp_path / "train.csv").write_text("path,label\na.mp4,0\n")
    with pytest.raises(UserError, match=r"classes\.txt: is not a regular file"):
        read_split(tmp_path, "train")


def test_sizes_are_checked_before_a_file_is_read(tmp_path, monkeypatch):
    with (tmp_path / "train.txt").open("wb") as file:
        file.truncate(3 << 30)  # sparse: takes no space
    with pytest.raises(UserError, match=r"train\.txt: has 3072 MiB"):
        read_split(tmp_path, "train")
    monkeypatch.setattr(text_files, "MAX_ROWS", 3)
    with pytest.raises(UserError, match="has 5 rows; an annotation file has at most 3"):
        split_lines("\n" * 5, tmp_path)


def test_deeply_nested_json_is_one_line(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"a\.json: is not JSON \(nested too deeply\)"):
        load_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("9" * 5000)
    with pytest.raises(UserError, match=r"a\.json: is not JSON"):
        load_json(tmp_path / "a.json")
