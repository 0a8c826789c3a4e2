import unicodedata

import pytest

from mmaction_lite.data.annotations.paths import exists, find_path
from mmaction_lite.data.annotations.splits import read_split
from tests.data.test_splits import touch

NFC, NFD = (unicodedata.normalize(form, "Übung/pâté") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("on_disk", "written"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), (NFD, NFD)])
def test_row_19_a_path_is_found_in_the_other_normal_form(tmp_path, on_disk, written):
    touch(tmp_path, f"{on_disk}.mp4")
    assert find_path(f"{written}.mp4", tmp_path) == f"{on_disk}.mp4"
    (tmp_path / "train.txt").write_text(f"{written}.mp4 run\nb.mp4 jump\n")
    assert read_split(tmp_path, "train").path(0).exists()


def test_row_19_the_normal_form_may_differ_between_the_parts_of_a_path(tmp_path):
    mixed = f"{NFC.split('/')[0]}/{NFD.split('/')[1]}.mp4"
    touch(tmp_path, mixed)
    assert find_path(f"{NFC}.mp4", tmp_path) == mixed
    assert find_path(f"{NFD}.mp4", tmp_path) == mixed


def test_paths_of_windows(tmp_path):
    touch(tmp_path, "clips/a b.mp4", "odd\\name.mp4")
    assert find_path("clips\\a b.mp4", tmp_path) == "clips/a b.mp4"
    assert find_path("odd\\name.mp4", tmp_path) == "odd\\name.mp4"
    (tmp_path / "train.txt").write_text("clips\\a b.mp4 run\n")
    (tmp_path / "val.csv").write_text("path,label\n.\\clips\\a b.mp4,run\n")
    for split in ("train", "val"):
        assert read_split(tmp_path, split).path(0).exists()


def test_spaces_at_the_ends_of_a_path_count_where_the_file_has_them(tmp_path):
    touch(tmp_path, "clip /1.jpg", "other/1.jpg")
    (tmp_path / "train.csv").write_text('path,label\n"clip ",run\n other,jump\n')
    samples = read_split(tmp_path, "train")
    assert [samples.paths[i] for i in range(2)] == ["clip ", "other"]


def test_existence_never_raises(tmp_path):
    touch(tmp_path, "a.tar", "b.mp4")
    assert exists("b.mp4", tmp_path)
    assert exists("a.tar/clips/c.mp4", tmp_path)
    assert not exists("x" * 10_000, tmp_path)
    assert not exists("a\0b", tmp_path)
    assert not exists("a\0b/*.jpg", tmp_path)
    assert not exists("\ud800/*.jpg", tmp_path)
    assert not exists("\ud800", tmp_path)
    assert find_path("https://host/a\\b.mp4", tmp_path) == "https://host/a\\b.mp4"


def test_names_that_are_not_utf8_are_read_if_the_file_exists(tmp_path):
    name = "caf\udce9.mp4"
    touch(tmp_path, name)
    (tmp_path / "train.txt").write_bytes(b"caf\xe9.mp4 run\nb.mp4 jump\n")
    assert read_split(tmp_path, "train").path(0).exists()
