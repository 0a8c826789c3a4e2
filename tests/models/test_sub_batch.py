"""Batch normalization in groups."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10
from mmaction_lite.models.sub_batch import SubBatchNorm2d, in_groups, split_batch_norm
from mmaction_lite.optim import SGD
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.training.loop import train
from mmaction_lite.weights.checkpoint import load_state

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_network_without_batch_norm_is_refused():
    with pytest.raises(UserError, match="norm_clips: Linear has no BatchNorm2d"):
        split_batch_norm(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("batch_size", "fewest", "groups"), [(12, 4, 3), (12, 5, 2), (7, 2, 1), (3, 4, 1), (8, 8, 1)]
)
def test_groups_are_equal_and_have_at_least_as_many_clips_as_asked(batch_size, fewest, groups):
    norm = SubBatchNorm2d(3)
    with in_groups([norm], batch_size, fewest):
        assert norm.groups == groups
    assert norm.groups == 1


def test_a_group_is_normalized_like_a_batch():
    torch.manual_seed(0)
    whole, plain = nn.BatchNorm2d(5), nn.BatchNorm2d(5)
    split_batch_norm(nn.Sequential(whole))
    x = torch.randn(12, 5, 3, 2).requires_grad_()
    assert isinstance(whole, SubBatchNorm2d)
    assert whole.state_dict().keys() == plain.state_dict().keys()
    with in_groups([whole], batch_size=6, fewest=2):
        y = whole(x)
    expected = [plain(part) for part in x.split(4)]
    assert torch.equal(y, torch.cat(expected))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in whole.state_dict().items())
    assert torch.equal(whole.eval()(x), plain.eval()(x))


def test_a_batch_in_groups_is_trained_like_its_parts(tiny, recipe, tmp_path):
    """Recomputed activations, running statistics and gradients are equal."""
    model = Build(tsm_r10, width=8, dropout=0.0)
    recipe = replace(recipe, model=model, optimizer=SGD(lr=0.01), epochs=1, max_grad_norm=None)
    weights = {}
    for name, settings in {
        "parts": {"clips_per_device": 2},
        "groups": {"norm_clips": 2},
        "again": {"norm_clips": 2, "recompute": True},
        "whole": {},
    }.items():
        train(replace(recipe, **settings), tiny, tmp_path / name)
        weights[name] = load_state(tmp_path / name / "last.pt")["model"]
    for name, tensor in weights["parts"].items():
        torch.testing.assert_close(weights["groups"][name], tensor, rtol=1e-4, atol=1e-6)
        assert torch.equal(weights["groups"][name], weights["again"][name]), name
    assert not torch.allclose(weights["whole"]["fc.weight"], weights["parts"]["fc.weight"], atol=1e-6)


def test_norm_clips_and_sync_batch_norm_exclude_each_other(recipe):
    with pytest.raises(UserError, match="norm_clips is 8 and batch_norm is 'sync'; expected only one"):
        replace(recipe, norm_clips=8, batch_norm="sync")
    with pytest.raises(UserError, match="norm_clips is 0; expected an integer, at least 1, or None"):
        replace(recipe, norm_clips=0)
