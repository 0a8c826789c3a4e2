import numpy as np
import pytest
import torch

from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.errors import UserError

MIXUP, CUTMIX, BOTH = Mixing(cutmix_alpha=0.0), Mixing(mixup_alpha=0.0), Mixing()


def batch(size=4, frames=3, height=12, width=16):
    """Clip i is i everywhere, its target is class i."""
    numbers = torch.arange(float(size)).view(-1, 1, 1, 1, 1)
    inputs = numbers.expand(size, 3, frames, height, width).contiguous(memory_format=torch.channels_last_3d)
    return inputs, torch.eye(size)


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, BOTH])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_targets_are_mixed_in_the_proportion_of_the_inputs(mixing, size):
    inputs, targets = batch(size)
    kept = inputs.clone()
    for seed in range(30):
        mixed, soft = mixing(inputs, targets, np.random.default_rng(seed))
        assert mixed.shape == inputs.shape
        assert mixed.is_contiguous(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(soft.sum(1), torch.ones(size))
        # The mean of a clip is the mean of its classes' numbers.
        torch.testing.assert_close(mixed.mean((1, 2, 3, 4)), soft @ torch.arange(float(size)))
    assert torch.equal(inputs, kept)
    assert torch.equal(targets, torch.eye(size))


def test_cutmix_puts_one_box_into_every_frame():
    inputs, targets = batch(2)
    for seed in range(50):
        mixed, _ = CUTMIX(inputs, targets, np.random.default_rng(seed))
        foreign = mixed[0] == 1
        assert torch.equal(foreign, foreign[:1, :1].expand_as(foreign))
        rows, columns = foreign[0, 0].any(1).nonzero(), foreign[0, 0].any(0).nonzero()
        assert foreign[0, 0].sum() == len(rows) * len(columns)
        assert torch.equal(mixed[1] == 0, foreign)  # the partner gets the same box


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_are_beta_distributed(alpha):
    inputs, targets = batch(2, 1, 2, 2)
    mixing = Mixing(mixup_alpha=alpha, cutmix_alpha=0.0)
    shares = np.array([mixing(inputs, targets, np.random.default_rng(s))[1][0, 0] for s in range(1500)])
    assert abs(shares.mean() - 0.5) < 0.04
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


def test_cutmix_boxes_have_the_area_of_the_paper():
    """Uniform λ for alpha 1; what lies over the border is lost, which makes the boxes smaller."""
    inputs, targets = batch(2, 1, 64, 64)
    shares = np.array([CUTMIX(inputs, targets, np.random.default_rng(s))[1][0, 0] for s in range(1500)])
    assert 0.62 < shares.mean() < 0.70
    assert shares.min() < 0.1
    assert shares.max() > 0.98


def test_the_generator_and_the_probability_decide():
    inputs, targets = batch()
    first, again = (BOTH(inputs, targets, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    for probability in (0.0, 0.3, 1.0):
        mixing = Mixing(probability=probability)
        mixed = [(mixing(inputs, targets, np.random.default_rng(s))[1] != targets).any() for s in range(300)]
        assert abs(np.mean(mixed) - probability) < 0.1
    kinds = [len(BOTH(inputs, targets, np.random.default_rng(s))[0][0].unique()) == 2 for s in range(300)]
    assert 0.4 < np.mean(kinds) < 0.6  # a mixed-up clip has one value, one with a box has two


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX])
def test_a_batch_in_parts_is_mixed_like_the_whole(mixing):
    """On several processes or under accumulation, given equal generators."""
    inputs, targets = batch(8)
    for seed in range(10):
        whole = mixing(inputs, targets, np.random.default_rng(seed))
        parts = [mixing(inputs[i : i + 4], targets[i : i + 4], np.random.default_rng(seed)) for i in (0, 4)]
        for one, several in zip(whole, zip(*parts, strict=True), strict=True):
            assert torch.equal(one, torch.cat(several))


def test_partners_of_repeated_views_are_other_videos():
    inputs, _ = batch(6)
    targets = torch.eye(3).repeat_interleave(2, 0)  # three videos, two views each
    _, soft = MIXUP(inputs, targets, np.random.default_rng(0), num_views=2)
    assert ((soft > 0).sum(1) == 2).all()


def test_half_precision_stays():
    inputs, targets = batch()
    mixed, soft = MIXUP(inputs.bfloat16(), targets, np.random.default_rng(0))
    assert mixed.dtype == torch.bfloat16
    assert soft.dtype == torch.float32


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match="expected at least one above 0"):
        Mixing(mixup_alpha=0.0, cutmix_alpha=0.0)
    with pytest.raises(UserError, match="probability is 2"):
        Mixing(probability=2)
