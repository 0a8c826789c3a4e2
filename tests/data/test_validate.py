"""Checking data sets."""

import json
from pathlib import Path

import pytest
from PIL import Image

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.tools.validate import _drawable, validate
from mmaction_lite.errors import UserError
from tests.data.test_prepare import plain


def test_validate_writes_lists_of_readable_clips_and_notes(damaged, tmp_path):
    report = validate(damaged, plain, tmp_path / "out")
    assert len(report.faults) == 1
    assert report.faults[0].startswith(f"{damaged}/broken.mp4: ")
    assert report.splits["train"]["codecs"] == {"h264": 12}
    (note,) = (note for note in report.notes if "1 samples are both in train and in val" in note)
    assert "val.txt:7" in note
    clean = read_split(tmp_path / "out", "train")
    assert len(clean) == 12
    assert clean.classes == ("down", "up")
    (row,) = map(json.loads, (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines())
    assert (row["path"], row["listed"]) == (f"{damaged}/broken.mp4", f"{damaged}/train.txt:13")
    with Image.open(tmp_path / "out" / "classes.png") as picture:
        assert picture.size[0] > 300


def test_validate_resumes_and_checks_changed_files_again(damaged, tmp_path, monkeypatch):
    validate(damaged, plain, tmp_path / "out")
    record = tmp_path / "out" / "checked.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    edited = lines[6].replace("25.0", "9" * 400)
    assert edited != lines[6]
    # Killed while it wrote the sixth.
    record.write_text("".join(lines[:5]) + edited + lines[5][:20])
    sizes = []
    again = validate(damaged, lambda items, total, title: (sizes.append(total), items)[1], tmp_path / "out")
    assert sizes == [13 - 5, 7 - 1]  # one of val is known from train
    assert again == validate(damaged, plain)
    source = next(path for path in read_split(tmp_path / "out", "val").root.parent.rglob("broken.mp4"))
    source.write_bytes(Path(read_split(tmp_path / "out", "train").path(0)).read_bytes())
    assert validate(damaged, plain, tmp_path / "out").faults == []


def test_validate_does_not_write_into_a_folder_of_other_files(damaged, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.csv").write_text("path,label,weight\n")
    with pytest.raises(UserError, match="out: is not empty; expected a new folder"):
        validate(damaged, plain, tmp_path / "out")
    (file,) = (tmp_path / "out").iterdir()
    assert file.read_text() == "path,label,weight\n"


def test_a_frame_count_that_is_wrong_is_noted_with_its_line(tmp_path):
    for number in range(3):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "a" / f"{number}.jpg")
    (tmp_path / "train.txt").write_text("a 3 0\na 4 0\n")
    report = validate(tmp_path, plain)
    assert f"{tmp_path}/train.txt:2: lists frames up to 4, but the video has 3" in report.notes


def test_copies_and_recordings_in_two_splits_are_noted(tiny, tmp_path):
    clips = sorted((tiny / "train").rglob("*.mp4"))[:4]
    rows = [f"{clip},{clip.parent.name},{n}\n" for n, clip in enumerate(clips)]
    (tmp_path / "copy.mp4").write_bytes(clips[0].read_bytes())
    (tmp_path / "train.csv").write_text("path,label,group\n" + "".join(rows[:3]))
    (tmp_path / "val.csv").write_text(f"path,label,group\ncopy.mp4,{clips[0].parent.name},0\n{rows[3]}")
    notes = validate(tmp_path, plain).notes
    (note,) = [note for note in notes if "the same recordings" in note]
    assert note.startswith(
        "1 of 2 val clips come from the same recordings as training clips, by the column group"
    )
    (note,) = [note for note in notes if "nearly the same picture" in note]
    assert f"such as {tmp_path / 'copy.mp4'} and {clips[0]};" in note


def test_class_names_that_the_font_lacks_are_numbers_in_the_picture(tiny, tmp_path):
    clip = next((tiny / "train").rglob("*.mp4"))
    names = ("手话", "a$b$", "\N{WAVING HAND SIGN}")
    rows = "".join(f"{clip},{name}\n" for name in names)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("path,label\n" + rows)
    validate(tmp_path / "data", plain, tmp_path / "out")  # a missing glyph is a warning, and here an error
    assert (tmp_path / "out" / "classes.png").stat().st_size > 1000
    assert [_drawable(name, 3) for name in names] == ["class 3", "a$b$", "class 3"]
