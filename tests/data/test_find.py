"""Clips that a path stands for."""

import pytest

from mmaction_lite.data.tools.find import find_clips
from mmaction_lite.errors import UserError


@pytest.fixture
def clips(tmp_path):
    """Two class folders with videos, one with a frame folder, and files that are no clips."""
    for name in ("run/b.mp4", "run/a.MKV", "jump/c/img_1.jpg", "jump/c/img_2.jpg", "notes.txt", ".x.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).write_bytes(b"")
    (tmp_path / "clips" / "run" / "loop").symlink_to(tmp_path / "clips")
    return tmp_path / "clips"


def test_a_folder_stands_for_its_clips_at_any_depth(clips):
    names = [str(clip.relative_to(clips)) for clip in find_clips([clips])]
    assert names == ["jump/c", "run/a.MKV", "run/b.mp4"]
    assert find_clips([clips / "jump" / "c"]) == [clips / "jump" / "c"]


def test_patterns_are_expanded_and_duplicates_removed(clips):
    found = find_clips([clips / "run" / "b.mp4", clips / "*" / "*.mp4", clips / "*" / "c"])
    assert found == [clips / "run" / "b.mp4", clips / "jump" / "c"]


def test_nothing_found_is_an_error_and_missing_files_are_reported_when_they_are_opened(clips, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in [(tmp_path / "empty", "found no clips"), (clips / "*.avi", "no clip matches")]:
        with pytest.raises(UserError, match=message):
            find_clips([path])
    assert find_clips([tmp_path / "gone.mp4"]) == [tmp_path / "gone.mp4"]
    (tmp_path / "a[1].mp4").write_bytes(b"")
    assert find_clips([tmp_path / "a[1].mp4"]) == [tmp_path / "a[1].mp4"]
