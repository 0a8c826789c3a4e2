import pytest

from mmaction_lite.data.annotations.layouts import locate
from mmaction_lite.data.annotations.rows import Rows
from mmaction_lite.data.annotations.splits import read_split
from tests.data.test_published import KINETICS
from tests.data.test_splits import listed, touch


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mp4.webm", ".MP4", ".mp4.mkv"])
def test_kinetics_with_other_suffixes(tmp_path, suffix):
    touch(tmp_path, f"train/riding a bike/abc-_123456_000015_000025{suffix}")
    (tmp_path / "train.csv").write_text(KINETICS)
    samples = read_split(tmp_path, "train")
    assert samples.path(0).exists()
    assert samples.paths[1] == "train/clapping/x_000000_000010.mp4"


def test_kinetics_with_several_suffixes(tmp_path):
    touch(tmp_path, "videos/abc-_123456_000015_000025.mp4.webm", "videos/x_000000_000010.mkv")
    (tmp_path / "train.csv").write_text(KINETICS)
    samples = read_split(tmp_path, "train")
    assert [samples.path(i).exists() for i in range(2)] == [True, True]


@pytest.mark.parametrize(
    "path", ["UCF-101/Archery/v_g01.mp4", "Archery/v_g01.mkv", "videos/Archery/v_g01/1.jpg"]
)
def test_ucf101_in_another_format(tmp_path, path):
    touch(tmp_path, path)
    (tmp_path / "trainlist01.txt").write_text("Archery/v_g01.avi 1\n")
    samples = read_split(tmp_path, "train")
    assert samples.path(0).exists()
    assert samples.classes == ("Archery",)


def test_hmdb51_in_another_format(tmp_path):
    touch(tmp_path, "videos/wave/a.mp4")
    (tmp_path / "wave_test_split1.txt").write_text("a.avi 1\n")
    assert listed(read_split(tmp_path, "train")) == [("videos/wave/a.mp4", "wave")]


def test_the_published_suffix_comes_first(tmp_path):
    touch(tmp_path, "videos/a.mp4", "videos/a.webm", "videos/a/1.jpg")
    rows = Rows(tmp_path / "list.csv", tmp_path)
    rows.add("a", "run", 1)
    assert locate(rows, ["train/{key}", "videos/{key}"], ".webm").paths == ["videos/a.webm"]
    rows.paths = ["b"]
    assert locate(rows, ["train/{key}", "videos/{key}"], ".webm").paths == ["train/b.webm"]
