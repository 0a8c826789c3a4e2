import numpy as np
import pytest

from mmaction_lite.data.sources.resample import short_side_size
from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.inference.map_geometry import (
    cell_positions,
    interpolation_matrix,
    place_in_frame,
    resize_cells,
    view_box,
)


def test_positions_of_cells():
    assert cell_positions(7, 224, "first").tolist() == [0, 32, 64, 96, 128, 160, 192]
    assert cell_positions(6, 42, "first").tolist() == [0, 8, 16, 24, 32, 40]  # 42, 21, 11, 6
    assert cell_positions(2, 5, "first").tolist() == [0, 2]  # pooled in pairs, without the last
    assert cell_positions(2, 8, "center").tolist() == [1.5, 5.5]
    assert cell_positions(5, 7, "first").tolist() == cell_positions(5, 7, "center").tolist()
    assert cell_positions(3, 3, "first").tolist() == [0, 1, 2]


def test_interpolation_is_linear_and_constant_outside():
    matrix = interpolation_matrix(np.array([0.0, 4.0]), np.array([-1, 0, 1, 4, 9]))
    np.testing.assert_allclose(matrix @ [10, 20], [10, 10, 12.5, 20, 20])
    cells = np.arange(8.0).reshape(2, 2, 2)
    assert (resize_cells(cells, np.arange(2), (2, 2, 2), "first") == cells).all()


@pytest.mark.parametrize(
    ("frame_size", "short_side", "size"),
    [
        ((96, 128), 48, (42, 56)),
        ((128, 96), 48, (42, 30)),
        ((30, 40), None, (64, 64)),  # enlarged
        ((97, 131), 50, (50, 50)),
    ],
)
def test_a_point_of_the_view_returns_to_its_place_in_the_frame(frame_size, short_side, size):
    resized = short_side_size(frame_size, short_side) if short_side else frame_size
    (placement,) = CenterCrop(size=size).plan(*resized)
    box = view_box(frame_size, resized, placement.box)
    for y, x in ((0.3, 0.6), (0.5, 0.5)):
        # A smooth spot at a known place of the frame, as the view would show it.
        rows = box[0] + (np.arange(size[0]) + 0.5) / size[0] * box[2] - 0.5
        columns = box[1] + (np.arange(size[1]) + 0.5) / size[1] * box[3] - 0.5
        center = y * frame_size[0], x * frame_size[1]
        spot = np.exp(-((rows[:, None] - center[0]) ** 2 + (columns - center[1]) ** 2) / 18)
        placed = place_in_frame(spot, box, frame_size)
        assert placed.shape == frame_size
        found = [(placed * axis).sum() / placed.sum() for axis in np.indices(frame_size)]
        np.testing.assert_allclose(found, center, atol=0.35)
    outside = place_in_frame(np.ones(size), box, frame_size)
    assert outside.sum() == pytest.approx(box[2] * box[3], rel=0.05)
    assert set(np.unique(outside.round(5))) <= {0, 1}
