"""Gradients of a batch, in parts that fit the device."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.errors import UserError
from mmaction_lite.training.gradients import Gradients


class Network(nn.Module):
    """A network without batch statistics that records the number of clips of each forward pass.

    It runs out of memory with more than `limit` clips.
    """

    def __init__(self, limit: int = 1000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(3, 2)
        self.limit = limit
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("out of memory\nmore of it")
        self.sizes.append(len(x))
        return self.fc(x.mean((2, 3, 4)))


def gradients_of(model: Network, recipe, **options) -> Gradients:
    options = {"may_shrink": True, "report": print} | options
    return Gradients(model, recipe, None, torch.amp.GradScaler(enabled=False), **options)


def batch(clips: int = 8, views: int = 1) -> tuple[Tensor, Tensor]:
    """uint8 (B, V, T, H, W, C) and the classes of all views."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (clips, views, 2, 4, 6, 3), np.uint8))
    return pixels, torch.arange(clips).repeat_interleave(views) % 2


@pytest.mark.parametrize(("clips_per_device", "sizes"), [(None, [8]), (3, [3, 3, 2]), (1, [1] * 8)])
def test_gradients_of_parts_add_up_to_those_of_the_batch(recipe, clips_per_device, sizes):
    recipe = replace(recipe, clips_per_device=clips_per_device)
    model, (pixels, labels) = Network(), batch()
    gradients = gradients_of(model, recipe)
    loss, accuracy = gradients.add(pixels, labels, np.random.default_rng(0))
    assert model.sizes == sizes

    reference = Network()
    logits = reference.fc(recipe.normalize(pixels.flatten(0, 1)).mean((2, 3, 4)))
    expected = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(model.fc.weight.grad, reference.fc.weight.grad)
    assert float(accuracy) == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


def test_views_of_a_clip_and_pairs_to_be_mixed_stay_together(recipe):
    recipe = replace(recipe, clips_per_device=5)
    model, (pixels, labels) = Network(), batch(clips=4, views=2)
    gradients_of(model, recipe).add(pixels, labels, np.random.default_rng(0))
    assert model.sizes == [4, 4]
    model = Network()
    targets = functional.one_hot(labels, 2).float()
    mixed = replace(recipe, mixing=Mixing(mixup_alpha=0.8, cutmix_alpha=0.0))
    gradients_of(model, mixed).add(pixels, targets, np.random.default_rng(0))
    assert model.sizes == [4, 4]


def test_parts_grow_with_the_batch_of_multigrid(recipe):
    """Clips of its larger batches are smaller by the same factor."""
    model, (pixels, labels) = Network(), batch()
    recipe = replace(recipe, clips_per_device=1)
    gradients_of(model, recipe).add(pixels, labels, np.random.default_rng(0), long_factor=2, short_factor=2)
    assert model.sizes == [4, 4]


def test_stages_are_reported_for_each_part(recipe):
    laps: list[str] = []
    gradients = gradients_of(Network(), replace(recipe, clips_per_device=4))
    gradients.add(*batch(), np.random.default_rng(0), lap=laps.append)
    assert laps == ["normalise", "forward", "backward"] * 2


def test_parts_are_halved_until_they_fit(recipe):
    lines: list[str] = []
    model, (pixels, labels) = Network(limit=2), batch()
    gradients = gradients_of(model, recipe, report=lines.append)
    gradients.add(pixels, labels, np.random.default_rng(0))
    assert model.sizes == [2, 2, 2, 2]
    assert len(lines) == 2
    assert "--set clips_per_device=2" in lines[1]
    whole = Network()
    gradients_of(whole, recipe).add(pixels, labels, np.random.default_rng(0))
    torch.testing.assert_close(model.fc.weight.grad, whole.fc.weight.grad)
    model.sizes.clear()
    gradients.add(pixels, labels, np.random.default_rng(0))
    assert model.sizes == [2, 2, 2, 2]  # from the first part on


@pytest.mark.parametrize(("limit", "may_shrink"), [(4, False), (0, True)])
def test_insufficient_memory_is_a_one_line_error(recipe, limit, may_shrink):
    """One of several processes must not shrink its parts; and no part is smaller than a clip."""
    gradients = gradients_of(Network(limit=limit), recipe, may_shrink=may_shrink)
    with pytest.raises(UserError, match="memory does not hold") as caught:
        gradients.add(*batch(), np.random.default_rng(0))
    assert "\n" not in str(caught.value)
    assert f"clips_per_device={1 if may_shrink else 4}" in str(caught.value)
