"""List files for the workers of other frameworks."""

import pytest

from mmaction_lite.benchmark import lists
from mmaction_lite.benchmark.lists import frames_of, write_frames_list, write_video_list
from mmaction_lite.errors import UserError


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "LISTED", 5)
    folder = tmp_path / "clips"
    for number, name in enumerate(("left", "right")):
        clip = folder / "train" / name / "one"
        clip.mkdir(parents=True)
        for index in range(number + 1):
            (clip / f"img_{index + 1:05}.jpg").touch()
    return folder


def test_lists_name_each_clip_with_its_label_until_no_reader_reaches_the_end(data, tmp_path):
    file = write_frames_list(data, tmp_path / "frames.txt", is_new=True)
    first, second = (data / "train" / name / "one" for name in ("left", "right"))
    assert file.read_text() == f"{first} 1 0\n{second} 2 1\n" * 3
    assert write_video_list(data, tmp_path / "v.txt", is_new=True).read_text().startswith(f"{first} 0\n")


def test_a_file_of_others_is_not_replaced(data, tmp_path):
    (tmp_path / "frames.txt").write_text("mine")
    with pytest.raises(UserError, match="a list of this benchmark"):
        write_frames_list(data, tmp_path / "frames.txt", is_new=True)


def test_frames_lie_beside_the_videos(tmp_path):
    assert frames_of(tmp_path / "clips") == tmp_path.resolve() / "clips_frames"
