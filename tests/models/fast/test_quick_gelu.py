"""QuickGELU is x · sigmoid(1.702 x)."""

import torch

from mmaction_lite.models.fast.quick_gelu import QuickGELU


def test_quick_gelu_and_its_gradient():
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    expected = x * torch.sigmoid(1.702 * x)
    torch.testing.assert_close(QuickGELU()(x), expected)
    (ours,) = torch.autograd.grad(QuickGELU()(x).sum(), x)
    (theirs,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(ours, theirs)
