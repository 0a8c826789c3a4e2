"""Data sets without labels."""

import pytest

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.annotations.unlabelled import read_unlabelled
from mmaction_lite.errors import UserError

CLASSES = ("video",)


def names(samples: Samples) -> list[str]:
    assert samples.classes == CLASSES
    assert not samples.labels.any()
    assert len(samples.labels) == len(samples)
    return sorted(samples.paths[i] for i in range(len(samples)))


def both(data) -> tuple[list[str], list[str]]:
    return names(read_unlabelled(data, "train", CLASSES)), names(read_unlabelled(data, "val", CLASSES))


@pytest.fixture
def videos(tmp_path):
    for number in range(20):
        path = tmp_path / ("a" if number % 2 else "b c") / f"clip {number}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "a" / "notes.md").touch()
    (tmp_path / "a" / ".hidden.mp4").touch()
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("clip*.mp4"))


def test_a_folder_of_videos_in_any_depth(tmp_path, videos):
    training, validation = both(tmp_path)
    assert sorted(training + validation) == videos
    assert len(validation) == 4


def test_one_list_of_paths_is_divided(tmp_path, videos):
    (tmp_path / "train.txt").write_text("# paths\n" + "\n".join(videos[:10]) + "\n")
    training, validation = both(tmp_path)
    assert sorted(training + validation) == videos[:10]
    assert len(validation) == 2
    assert both(tmp_path / "train.txt") == (training, validation)


def test_a_list_of_each_split(tmp_path, videos):
    (tmp_path / "train.txt").write_text("\n".join(videos[:12]))
    (tmp_path / "val.txt").write_text("\n".join(videos[12:]))
    assert both(tmp_path) == (videos[:12], videos[12:])


def test_labels_are_dropped(tmp_path, videos):
    (tmp_path / "train.txt").write_text("\n".join(f'"{name}" {i % 3}' for i, name in enumerate(videos[:12])))
    (tmp_path / "val.txt").write_text("\n".join(f'"{name}" 1' for name in videos[12:]))
    assert both(tmp_path) == (videos[:12], videos[12:])


def test_class_folders_are_read_as_videos(tmp_path):
    for split, count in (("train", 5), ("val", 2)):
        for number in range(count):
            path = tmp_path / split / "up" / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    training, validation = both(tmp_path)
    assert (len(training), len(validation)) == (5, 2)


def test_errors_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file or folder; --data takes a folder or a list file"):
        read_unlabelled(tmp_path / "absent", "train", CLASSES)
    with pytest.raises(UserError, match="found no clips"):
        read_unlabelled(tmp_path, "train", CLASSES)


def test_missing_videos_are_paths_all_the_same(tmp_path):
    """Whether they exist is checked before the training."""
    (tmp_path / "train.txt").write_text("gone.mp4\nlost.avi\n")
    (tmp_path / "val.txt").write_text("gone.mp4\n")
    assert both(tmp_path) == (["gone.mp4", "lost.avi"], ["gone.mp4"])
