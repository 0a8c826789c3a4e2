"""The memory format of weights changes no number."""

import copy

import torch

from mmaction_lite.models.fast.memory_format import store_channels_last
from tests.models.test_models import build, clip


def test_the_layout_of_weights_changes_no_number() -> None:
    torch.manual_seed(0)
    for name in ("i3d_r50", "tsm_r50"):
        model, x = build(name), clip(name)
        laid_out = copy.deepcopy(model)
        store_channels_last(laid_out, is_trained=True)
        assert any(not p.is_contiguous() for p in laid_out.parameters())
        found = []
        for each in (model.double(), laid_out.double()):
            each.train()
            torch.manual_seed(0)
            logits = each(x.double())
            found.append((logits, *torch.autograd.grad(logits.logsumexp(1).sum(), list(each.parameters()))))
        for expected, got in zip(*found, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)
