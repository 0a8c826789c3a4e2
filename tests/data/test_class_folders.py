from pathlib import Path

import pytest

from mmaction_lite.data.annotations.class_folders import hold_out, holds_clips, read_class_folders
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError
from tests.data.test_splits import listed, touch


def test_videos_folders_of_images_and_zip_files_are_clips(tmp_path):
    touch(tmp_path, "run/a.mp4", "run/b.zip", "run/notes.txt", "run/.c.mp4", "jump/d/1.jpg", "jump/e/1.txt")
    samples = read_class_folders(tmp_path)
    assert listed(samples) == [("jump/d", "jump"), ("run/a.mp4", "run"), ("run/b.zip", "run")]


def test_train_and_held_out_parts_are_all_clips(tmp_path):
    touch(tmp_path, *(f"run/{i}.mp4" for i in range(11)))
    samples = read_class_folders(tmp_path)
    train, val = (hold_out(samples, held_out=held_out) for held_out in (False, True))
    assert (len(train), len(val)) == (8, 3)
    assert sorted(listed(train) + listed(val)) == sorted(listed(samples))


def test_row_17_frame_folders_of_every_image_format_are_clips(tmp_path):
    touch(
        tmp_path, *(f"run/{suffix}/0.{suffix}" for suffix in ("webp", "bmp", "PNG", "jpeg")), "jump/a/.b.jpg"
    )
    assert [path for path, _ in listed(read_class_folders(tmp_path))] == [
        "run/PNG",
        "run/bmp",
        "run/jpeg",
        "run/webp",
    ]


def test_everything_that_is_skipped_is_noted_with_its_count(tmp_path):
    touch(
        tmp_path,
        "a.mp4",
        "b.mp4",
        "run/c.mp4",
        "run/deeper/d.mp4",
        "run/e/f/0.jpg",
        "jump/0.jpg",
        "jump/1.jpg",
    )
    (tmp_path / "empty").mkdir()
    notes = read_class_folders(tmp_path).notes
    assert [note.removeprefix(f"{tmp_path}: ").partition(",")[0] for note in notes] == [
        "2 clips beside the class folders are skipped",
        "2 folders inside class folders contain no image and are skipped",
        "2 images directly in 1 class folders are skipped",
        "2 folders contain no clip: empty",
    ]
    assert read_split(tmp_path, "train", ("run", "jump")).notes == notes


def test_the_error_without_clips_says_what_was_skipped(tmp_path):
    touch(tmp_path, "a/run/c.mp4", "b/run/d.mp4")
    with pytest.raises(
        UserError, match=r"found no clips; expected .* \(2 folders inside class folders contain no image"
    ):
        read_class_folders(tmp_path)


def test_row_19_class_folders_in_both_normal_forms(tmp_path):
    nfc, nfd = "Übung", "U\u0308bung"
    touch(tmp_path, f"train/{nfc}/a.mp4", "train/run/b.mp4", f"val/{nfd}/c.mp4")
    train = read_split(tmp_path, "train")
    val = read_split(tmp_path, "val", train.classes)
    assert train.classes == ("run", nfc)
    assert [val.class_names(0), val.path(0).exists()] == [[nfc], True]
    touch(tmp_path, f"train/{nfd}/d.mp4")
    with pytest.raises(UserError, match="have the same class name"):
        read_split(tmp_path, "train")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\udcff", "\x1b[2J", "a\u2028b", " "])
def test_folders_that_cannot_name_a_class_are_an_error(tmp_path, name):
    touch(tmp_path, f"{name}/a.mp4", "run/b.mp4")
    with pytest.raises(UserError, match="class name") as error:
        read_class_folders(tmp_path)
    assert str(error.value).isprintable()


def test_a_folder_that_ends_with_a_colon_is_no_server(tmp_path, monkeypatch):
    touch(tmp_path, "take:/a.mp4", "run/b.mp4")
    monkeypatch.chdir(tmp_path)
    samples = read_class_folders(Path())
    assert samples.path(1) == tmp_path / "take:" / "a.mp4"


def test_folders_that_hold_clips(tmp_path):
    touch(tmp_path, "Train/a.mp4", "other/b/c.mp4")
    assert holds_clips(tmp_path / "Train")
    assert not holds_clips(tmp_path / "other")
