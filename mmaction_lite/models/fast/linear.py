"""Linear layers by oneDNN, which is twice as fast as PyTorch's own choice on CPUs where MKL avoids AVX-512.

On an AMD EPYC with AVX-512, oneDNN computes 120 · 10⁹ multiply-adds per second on one core, MKL 54 · 10⁹. On
an Intel Xeon, where MKL uses AVX-512, oneDNN takes 0.9 to 1.6 times as long as MKL.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mmaction_lite.models.fast.operators import is_mkl_faster, multiply_onednn

LEAST_WORK = 1 << 24  # multiply-adds; below, the call of oneDNN costs more than it saves


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x Wᵀ + b` for x (..., in_features) and weight (out_features, in_features).

    Large float32 products on a CPU with AVX-512 that is not of Intel run in oneDNN, everything else in
    PyTorch's operator. The results differ by rounding.
    """
    if not _is_faster(x, weight):
        return functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Linear.apply(x, weight, bias)  # pyright: ignore[reportReturnType]
    return multiply_onednn(x, weight, bias)


class Linear(nn.Linear):
    """An `nn.Linear` that runs `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return linear(input, self.weight, self.bias)


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes the product, and faster."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or weight.device.type != "cpu":
        return False
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    is_plain = type(x) is Tensor and isinstance(weight, Tensor) and not is_wrapped(x, weight)
    return is_plain and x.numel() * weight.shape[0] >= LEAST_WORK and not is_mkl_faster()


def is_wrapped(*tensors: Tensor) -> bool:
    """Whether a function transform or a dispatch mode, such as a counter of operators, is active."""
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    is_transformed = any(functorch.is_functorch_wrapped_tensor(tensor) for tensor in tensors)
    return is_transformed or torch._C._len_torch_dispatch_stack() > 0


class _Linear(torch.autograd.Function):
    """The product and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        return multiply_onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if weight is not None:
            grad_x = multiply_onednn(grad, weight.t(), None)
        rows = grad.flatten(0, -2)
        if x is not None:
            grad_weight = multiply_onednn(rows.t(), x.flatten(0, -2).t(), None)
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias
