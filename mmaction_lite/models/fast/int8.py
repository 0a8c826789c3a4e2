"""Convolutions in whole numbers of 8 bits: uint8 activations, int8 weights, int32 sums, by oneDNN.

The arithmetic is that of Jacob et al., arXiv:1712.05877: a step and a zero for every tensor of activations, a
step for every output channel of weights.
"""

import platform
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmaction_lite.errors import UserError

# On ARM, sums with a zero point were wrong (oneDNN's issue 2412).
HAS_INT8 = (
    platform.machine().lower() in ("x86_64", "amd64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.onednn, "qconv2d_pointwise")
)


class Scale(NamedTuple):
    """What uint8 numbers stand for: n for step · (n - zero)."""

    step: float
    zero: int

    def quantize(self, x: Tensor) -> Tensor:
        """float32 to uint8 of the same shape and order of memory."""
        return x.mul(1 / self.step).add_(self.zero).round_().clamp_(0, 255).to(torch.uint8)

    def dequantize(self, x: Tensor) -> Tensor:
        """uint8 to float32."""
        return x.float().sub_(self.zero).mul_(self.step)


class Int8Epilogue:
    """A convolution in 8 bits, and what follows on it; takes the place of `Epilogue`.

    Args:
        relu: cut at zero.
        source: of what it reads.
        target: of its result; None for float32.
        shortcut: of what is added.
    """

    def __init__(self, relu: bool, source: Scale, target: Scale | None, shortcut: Scale | None) -> None:
        self.relu = relu
        self.source = source
        self.target = target
        self.shortcut = shortcut
        self._packed: tuple[Tensor, Tensor, Tensor] | None = None

    def __reduce__(self) -> Any:
        return Int8Epilogue, (self.relu, self.source, self.target, self.shortcut)

    def convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        groups: int,
        plus: Tensor | None,
    ) -> Tensor:
        """See `fused.Epilogue.convolve`; `x` may be float32, the sum overwrites `plus`."""
        if x.device.type != "cpu":
            raise UserError(f"a network in int8 runs on processors, not on {x.device}; use device cpu")
        if x.dtype != torch.uint8:
            x = self.source.quantize(x)
        padding = [length // 2 for length in weight.shape[2:]]
        shape = (stride, padding, [1] * len(padding), groups)
        if self._packed is None:
            whole, steps = _whole(weight)
            packed = torch.ops.onednn.qconv_prepack(whole, steps, *self.source, *shape, x.shape)
            self._packed = packed, steps, torch.zeros_like(steps, dtype=torch.int32)
        how = (x, *self.source, *self._packed)
        target = (*(self.target or (1.0, 0)), torch.uint8 if self.target else torch.float32)
        epilogue = "relu" if self.relu else "none"
        if x.ndim == 5:
            return self._convolve_clips(how, bias, shape, plus)
        if plus is None:
            return torch.ops.onednn.qconv2d_pointwise(*how, bias, *shape, *target, epilogue, [], "")
        assert self.shortcut is not None
        run = torch.ops.onednn.qconv2d_pointwise.binary
        return run(*how, plus, bias, *shape, *target, *self.shortcut, "sum", 1.0, epilogue, [], "")

    def _convolve_clips(self, how: Any, bias: Tensor | None, shape: Any, plus: Tensor | None) -> Tensor:
        """Kernels over frames and pixels, behind which oneDNN neither adds nor cuts."""
        run = torch.ops.onednn.qconv3d_pointwise
        if plus is None and self.target is not None and (self.target.zero == 0 or not self.relu):
            # Where 0 is the least number, all below are cut.
            return run(*how, bias, *shape, *self.target, torch.uint8, "none", [], "")
        out = run(*how, bias, *shape, 1.0, 0, torch.float32, "none", [], "")
        if plus is not None:
            assert self.shortcut is not None
            out = out.add_(self.shortcut.dequantize(plus))
        out = out.relu_() if self.relu else out
        return out if self.target is None else self.target.quantize(out)


def _whole(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 weights, and the step of every output channel, float32 (O)."""
    # Without VNNI instructions, two products are added in 16 bits, and full range would not fit.
    most = 127 if torch.cpu._is_vnni_supported() else 63
    steps = weight.abs().flatten(1).amax(1).clamp_min(1e-9) / most
    whole = (weight / steps.view(-1, *[1] * (weight.ndim - 1))).round()
    return whole.to(torch.int8), steps
