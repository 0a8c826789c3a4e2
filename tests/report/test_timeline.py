"""The picture of a timeline shows every class, and any text."""

import io

from PIL import Image

from mmaction_lite.report.timeline import MOST_ROWS, timeline_png


def size(segments, duration=100.0, title="a.mp4"):
    with Image.open(io.BytesIO(timeline_png(segments, duration, title, "protocol line"))) as picture:
        assert picture.format == "PNG"
        return picture.size


def test_height_grows_with_the_number_of_classes():
    few = size([("run", 0.0, 10.0, 0.9), ("jump", 5.0, 50.0, 0.4)])
    many = size([(f"class {n}", n, n + 5.0, 0.5) for n in range(3 * MOST_ROWS)])
    assert few[0] == many[0] == 1100
    assert few[1] < many[1] < 900


def test_unusual_videos_have_a_picture():
    size([])
    size([("x", 0.0, 0.0, 1.0)], duration=0.0)
    size([("$x$ \n 走る" * 30, 0.0, 36000.0, float(1))], duration=36000.0, title="$\udcff<&>.mp4")
