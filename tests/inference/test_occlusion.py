import numpy as np
import pytest
import torch

from mmaction_lite.inference.occlusion import occlude, space_time_drops, time_drops


def brightness(part: tuple[slice, ...]):
    """The logit is the mean of one part of the clip."""
    return lambda clips: clips[(slice(None), slice(None), *part)].mean((1, 2, 3, 4))


@pytest.mark.parametrize("frames", [1, 3, 8, 17, 32])
def test_the_drop_in_time_is_that_of_the_frames_that_count(frames):
    clip = torch.zeros(1, 3, frames, 4, 4)
    last = slice(frames - max(1, frames // 8), None)
    clip[:, :, last] = 1
    drops = time_drops(brightness((last,)), clip, "mean", 4)
    assert drops.shape == (frames,)
    assert drops[-1] == pytest.approx(1)
    assert frames < 8 or (drops[: frames // 2] == 0).all()


def test_a_neighboring_frame_hides_motion_only():
    still = torch.rand(1, 3, 1, 4, 4).expand(-1, -1, 8, -1, -1)
    assert np.abs(time_drops(brightness((slice(None),)), still, "neighbor", 8)).max() < 1e-6
    moving = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(-1, 3, -1, 4, 4)
    hidden = occlude(moving, (slice(0, 2), slice(None), slice(None)), "neighbor")
    assert hidden[0, 0, :, 0, 0].tolist() == [2, 2, 2, 3, 4, 5, 6, 7]
    hidden = occlude(moving, (slice(6, 8), slice(0, 1), slice(None)), "neighbor")
    assert hidden[0, 0, :, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 5]
    assert hidden[0, 0, :, 1, 0].tolist() == list(range(8))
    alone = occlude(torch.rand(1, 3, 1, 4, 4), (slice(0, 1), slice(None), slice(None)), "neighbor")
    assert not alone.any()  # a single frame has no neighbor


def test_blocks_find_the_place_that_counts():
    clip = torch.zeros(1, 3, 8, 32, 32)
    place = (slice(4, 5), slice(16, 24), slice(0, 8))
    clip[(slice(None), slice(None), *place)] = 1
    drops = space_time_drops(brightness(place), clip, "mean", 64)
    assert drops.shape == (8, 32, 32)
    inside = np.zeros(drops.shape, bool)
    inside[place] = True
    assert drops[inside].min() > 3 * drops[~inside].mean()
    assert np.unravel_index(drops.argmax(), drops.shape)[0] == 4
    assert drops[inside].max() == drops.max()
