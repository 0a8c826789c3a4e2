"""Convolutions in 8 bits: uint8 activations, int8 weights and int32 sums, by oneDNN.

The arithmetic is that of Jacob et al., arXiv:1712.05877, section 2: a scale and a zero point per tensor of
activations, a scale per output channel of a weight.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.models.fast.operators import (
    Geometry,
    Int8Arguments,
    convolve_add_int8,
    convolve_clips_int8,
    convolve_int8,
    has_int8,
    largest_int8_weight,
    pack_int8_weight,
)


def check_int8_support() -> None:
    """Raise a UserError unless quantized convolutions work here."""
    if not has_int8():
        raise UserError("int8 needs an x86 processor with exact oneDNN kernels. Run without int8")


class Scale(NamedTuple):
    """Meaning of uint8 values: n stands for step · (n - zero)."""

    step: float
    zero: int

    def quantize(self, x: Tensor) -> Tensor:
        """Convert float32 to uint8; shape and memory format stay."""
        return x.mul(1 / self.step).add_(self.zero).round_().clamp_(0, 255).to(torch.uint8)

    def dequantize(self, x: Tensor) -> Tensor:
        """Convert uint8 to float32; shape and memory format stay."""
        return x.float().sub_(self.zero).mul_(self.step)


class Int8Epilogue:
    """An 8-bit convolution and the operations that follow it; replaces `Epilogue`.

    Args:
        relu: apply ReLU.
        source: scale of the input.
        target: scale of the output; None for a float32 output.
        shortcut: scale of the tensor that is added; None where none is.
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
        other: Tensor | None,
    ) -> Tensor:
        """Convolve and apply the epilogue, see `fused.Epilogue.convolve`.

        The input may be float32 or uint8; the sum may overwrite uint8 `other`.

        Raises:
            UserError: `x` is not on the CPU, or PyTorch has no quantized convolutions here.
        """
        if x.device.type != "cpu":
            raise UserError(f"int8: a quantized model runs on the CPU, not on {x.device}. Use device cpu")
        if x.dtype != torch.uint8:
            x = self.source.quantize(x)
        geometry = Geometry(stride, tuple(length // 2 for length in weight.shape[2:]), groups)
        if self._packed is None:
            self._packed = self._pack(weight, geometry, x.shape)
        source = (x, self.source.step, self.source.zero)
        arguments = Int8Arguments(source, self._packed, bias, geometry, self.target)
        if x.ndim == 5:
            return self._convolve_clips(arguments, other)
        if other is None:
            return convolve_int8(arguments, self.relu)
        assert self.shortcut is not None
        step, zero = self.shortcut
        return convolve_add_int8(arguments, self.relu, other=other, scale=step, zero=zero)

    def _pack(
        self, weight: Tensor, geometry: Geometry, input_shape: torch.Size
    ) -> tuple[Tensor, Tensor, Tensor]:
        check_int8_support()
        quantized, steps = _quantize_weight(weight)
        step, zero = self.source
        packed = pack_int8_weight(
            quantized, steps, geometry, input_scale=step, input_zero=zero, input_shape=input_shape
        )
        return packed, steps, torch.zeros_like(steps, dtype=torch.int32)

    def _convolve_clips(self, arguments: Int8Arguments, other: Tensor | None) -> Tensor:
        """Convolve clips; oneDNN fuses neither sum nor ReLU with them."""
        if other is None and self.target is not None and (self.target.zero == 0 or not self.relu):
            return convolve_clips_int8(arguments)  # a zero point of 0 clamps negative values, as ReLU does
        out = convolve_clips_int8(arguments._replace(target=None))
        if other is not None:
            assert self.shortcut is not None
            out = out.add_(self.shortcut.dequantize(other))
        out = out.relu_() if self.relu else out
        return out if self.target is None else self.target.quantize(out)


def _quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return an int8 weight and its scale per output channel, float32 (O)."""
    steps = weight.abs().flatten(1).amax(1).clamp_min(1e-9) / largest_int8_weight()
    quantized = (weight / steps.view(-1, *[1] * (weight.ndim - 1))).round()
    return quantized.to(torch.int8), steps
