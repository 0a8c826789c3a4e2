"""Clips that a path stands for."""

from pathlib import Path

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


def test_a_pattern_that_matches_images_only_is_one_clip(tmp_path):
    for name in ("a.mp4", "b.mp4", "cover.jpg", "frames/img_1.jpg", "frames/img_2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_clips([tmp_path / "frames" / "img_*.*"]) == [tmp_path / "frames" / "img_*.*"]
    # Images beside the matched clips are not clips.
    assert find_clips([tmp_path / "*"]) == [tmp_path / name for name in ("a.mp4", "b.mp4", "frames")]


def test_a_member_of_a_tar_file_is_no_pattern(tmp_path):
    assert find_clips([tmp_path / "clips.tar" / "a[1].mp4"]) == [tmp_path / "clips.tar" / "a[1].mp4"]


def test_a_folder_of_videos_and_as_many_images_is_ambiguous(tmp_path):
    for name in ("a.mp4", "b.mp4", "img_1.jpg", "img_2.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"contains 2 videos and 2 images; .* Pass a pattern"):
        find_clips([tmp_path])
    (tmp_path / "img_3.jpg").write_bytes(b"")  # frames, beside the videos that they come from
    assert find_clips([tmp_path]) == [tmp_path]


def test_a_name_that_is_too_long_is_one_line():
    assert all("too long" in str(error) for error in [_error_of("n" * 300), _error_of("n" * 300 + "*.mp4")])


def _error_of(name):
    with pytest.raises(UserError) as caught:
        find_clips([Path(name)])
    return caught.value
