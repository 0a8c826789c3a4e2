"""Examples are made at their first use, and only those that are listed."""

import pytest

from mmaction_lite.data.sources.video import Video
from mmaction_lite.serve.examples import LONG, Examples, list_examples


def test_examples_are_made_at_first_use(tmp_path):
    examples = Examples(tmp_path)
    assert not list(tmp_path.iterdir())
    path = examples.path("move_left")
    assert path is not None
    with Video(path) as video:
        assert len(video) == 64
    made = path.stat().st_mtime_ns
    again = examples.path("move_left")
    assert again == path
    assert path.stat().st_mtime_ns == made
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_the_long_example(tmp_path):
    path = Examples(tmp_path).path(LONG)
    assert path is not None
    with Video(path) as video:
        assert len(video) >= 30 * 25


def test_names_are_those_of_the_list(tmp_path):
    names = [example.name for example in list_examples()]
    assert len(set(names)) == len(names) == 11
    for name in ("", "x", "../move_left", "/etc/passwd", "move_left.mp4", "move_left\0"):
        assert Examples(tmp_path).path(name) is None
