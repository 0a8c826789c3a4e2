"""A picture of training clips."""

import pytest
from PIL import Image

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.tools.browse import browse
from mmaction_lite.errors import UserError


def test_browse_shows_the_training_draws(tiny, tmp_path, recipe):
    samples = read_split(tiny, "train")
    assert browse(samples, recipe.train, tmp_path / "sheet.png", 5) == 5
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (4 * 28, 5 * (20 + 14))


def test_no_readable_clip_is_a_one_line_error(tmp_path, recipe):
    (tmp_path / "train.txt").write_text("gone.mp4 0\nlost.mp4 1\n")
    with pytest.raises(UserError, match="none of 2 clips can be read; run `mmaction-lite data validate`"):
        browse(read_split(tmp_path, "train"), recipe.train, tmp_path / "sheet.png", 5)
    assert not (tmp_path / "sheet.png").exists()


def test_a_file_that_is_no_picture_is_not_replaced(tiny, tmp_path, recipe):
    (tmp_path / "my.py").write_text("mine")
    with pytest.raises(UserError, match=r"my\.py: .*expected a name that ends in \.png"):
        browse(read_split(tiny, "train"), recipe.train, tmp_path / "my.py", 5)
    assert (tmp_path / "my.py").read_text() == "mine"
