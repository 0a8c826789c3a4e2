"""The reliability picture."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from mmaction_lite.errors import UserError
from mmaction_lite.report.reliability import check_picture_out, reliability_figure, write_picture
from mmaction_lite.tasks.calibration import reliability


def test_the_picture_shows_the_bins_and_replaces_only_itself(tmp_path):
    rng = np.random.default_rng(0)
    confidence = rng.random(100)
    found = reliability(confidence, rng.random(100) < confidence)
    figure = reliability_figure([("before", found), ("temperature 2", found)])
    title = figure.axes[0].get_title()
    assert title == f"before: ECE {found.error:.2%}"
    heights = [bar.get_height() for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    np.testing.assert_allclose(heights, found.accuracies[found.counts > 0])
    for name in ("r.png", "r.svg"):
        write_picture(tmp_path / name, figure)
        write_picture(tmp_path / name, figure)
    with Image.open(tmp_path / "r.png") as image:
        assert image.width > 500
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="is not a reliability picture"):
        check_picture_out(tmp_path / "mine.png")
    with pytest.raises(UserError, match=r"a picture is \.png or \.svg"):
        check_picture_out(tmp_path / "r.jpg")
