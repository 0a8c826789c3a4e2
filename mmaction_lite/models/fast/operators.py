"""Private operators of PyTorch's oneDNN backend, and whether they work in this process.

A release of PyTorch may rename, change or remove a private operator. Each group of operators therefore runs
once, on first use, on a tiny input, and its result is compared with that of the public operator. Callers that
find a group unavailable run the public operators instead. No other module of the package calls `torch.ops`.
"""

import platform
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Geometry(NamedTuple):
    """Stride, padding and groups of a convolution over pixels, or over frames and pixels; dilation is 1."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    @property
    def dilation(self) -> tuple[int, ...]:
        """1 per dimension."""
        return (1,) * len(self.padding)


def pack_weight(weight: Tensor, geometry: Geometry, input_shape: Sequence[int]) -> Tensor:
    """Return a float32 weight in oneDNN's blocked memory format, chosen for inputs of `input_shape`."""
    stride, padding, groups = geometry
    return torch.ops.mkldnn._reorder_convolution_weight(
        weight, padding, stride, geometry.dilation, groups, input_shape
    )


def convolve_fused(x: Tensor, packed: Tensor, bias: Tensor | None, geometry: Geometry, relu: bool) -> Tensor:
    """Convolve with a weight of `pack_weight`, then apply ReLU if `relu`, in one kernel."""
    stride, padding, groups = geometry
    return torch.ops.mkldnn._convolution_pointwise(
        x, packed, bias, padding, stride, geometry.dilation, groups, "relu" if relu else "none", [], ""
    )


def convolve_add_fused(
    x: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    relu: bool,
    *,
    other: Tensor,
    in_place: bool,
) -> Tensor:
    """Convolve, add `other`, then apply ReLU if `relu`, in one kernel; `in_place` writes into `other`."""
    stride, padding, groups = geometry
    arguments = (packed, bias, padding, stride, geometry.dilation, groups, "add", 1.0)
    arguments += ("relu" if relu else None, [], "")
    if in_place:
        return torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *arguments)
    return torch.ops.mkldnn._convolution_pointwise.binary(x, other, *arguments)


def convolve_onednn(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve with oneDNN, also where PyTorch would choose another implementation."""
    stride, padding, groups = geometry
    return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, geometry.dilation, groups)


def multiply_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `x Wᵀ + b` by oneDNN for float32 x (..., in_features) and weight (out_features, in_features)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class Int8Arguments(NamedTuple):
    """The arguments that all quantized convolutions share.

    Args:
        x: uint8, its scale and its zero point.
        packed: weight of `pack_int8_weight`, its scales float32 (O) and its zero points int32 (O).
        bias: float32 (O) or None.
        geometry: of the convolution.
        target: scale and zero point of a uint8 output; None for a float32 output.
    """

    x: tuple[Tensor, float, int]
    packed: tuple[Tensor, Tensor, Tensor]
    bias: Tensor | None
    geometry: Geometry
    target: tuple[float, int] | None

    def split(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the arguments before and after the position of the tensor to add."""
        stride, padding, groups = self.geometry
        output = (*(self.target or (1.0, 0)), torch.uint8 if self.target else torch.float32)
        return (*self.x, *self.packed), (
            self.bias, stride, padding, self.geometry.dilation, groups, *output,
        )  # fmt: skip


def pack_int8_weight(
    weight: Tensor,
    scales: Tensor,
    geometry: Geometry,
    *,
    input_scale: float,
    input_zero: int,
    input_shape: Sequence[int],
) -> Tensor:
    """Return an int8 weight in oneDNN's blocked memory format; `scales` is float32 (O)."""
    stride, padding, groups = geometry
    return torch.ops.onednn.qconv_prepack(
        weight, scales, input_scale, input_zero, stride, padding, geometry.dilation, groups, input_shape
    )


def convolve_int8(arguments: Int8Arguments, relu: bool) -> Tensor:
    """Convolve frames, then apply ReLU if `relu`."""
    first, last = arguments.split()
    return torch.ops.onednn.qconv2d_pointwise(*first, *last, "relu" if relu else "none", [], "")


def convolve_add_int8(
    arguments: Int8Arguments, relu: bool, *, other: Tensor, scale: float, zero: int
) -> Tensor:
    """Convolve frames, add uint8 `other` in place, then apply ReLU if `relu`."""
    first, last = arguments.split()
    epilogue = "relu" if relu else "none"
    return torch.ops.onednn.qconv2d_pointwise.binary(
        *first, other, *last, scale, zero, "sum", 1.0, epilogue, [], ""
    )


def convolve_clips_int8(arguments: Int8Arguments) -> Tensor:
    """Convolve clips; oneDNN has no fused sum or ReLU for them."""
    first, last = arguments.split()
    return torch.ops.onednn.qconv3d_pointwise(*first, *last, "none", [], "")


def has_vnni() -> bool:
    """Whether the processor sums products of 8-bit numbers in 32 bits; False where PyTorch cannot tell."""
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return supported is not None and supported()


@cache
def has_fused() -> bool:
    """Whether convolutions with a fused sum and ReLU work; plain operators replace them elsewhere."""
    return _works(_probe_fused)


@cache
def has_onednn() -> bool:
    """Whether `convolve_onednn` works; `torch.nn.functional.conv3d` replaces it elsewhere."""
    return _works(_probe_onednn)


@cache
def has_int8() -> bool:
    """Whether quantized convolutions work; nothing replaces them.

    On ARM, sums with a zero point were wrong (oneDNN issue 2412), so only x86 processors count.
    """
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return is_x86 and _works(_probe_int8) and _works(_probe_int8_sums)


def largest_int8_weight() -> int:
    """Return the largest absolute value of a quantized weight whose products are summed exactly.

    Without VNNI instructions two products are summed in 16 bits, which larger values than 63 can overflow.
    """
    return 127 if has_vnni() else 63


def _works(probe: Callable[[], bool]) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return probe()
    except Exception:  # a changed operator can fail in any way
        return False


def _values(*shape: int) -> Tensor:
    """Integers from -3 to 3 as float32, the channels last in memory, without a draw from the generator."""
    values = torch.arange(torch.Size(shape).numel(), dtype=torch.float32, device="cpu") * 5 % 7 - 3
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    return values.view(shape).contiguous(memory_format=layout)


def _geometry(weight: Tensor) -> Geometry:
    return Geometry((1,) * (weight.ndim - 2), tuple(length // 2 for length in weight.shape[2:]), 1)


def _convolve_plainly(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    run = functional.conv2d if x.ndim == 4 else functional.conv3d
    return run(x, weight, bias, padding=_geometry(weight).padding)


def _probe_fused() -> bool:
    for size in ((4, 4), (2, 4, 4)):
        x, weight, bias = _values(1, 4, *size), _values(4, 4, *(3 for _ in size)), torch.ones(4, device="cpu")
        other, geometry = _values(1, 4, *size), _geometry(weight)
        plain = _convolve_plainly(x, weight, bias)
        packed = pack_weight(weight, geometry, x.shape)
        pairs = [
            (convolve_fused(x, packed, bias, geometry, True), plain.relu()),
            (convolve_fused(x, packed, bias, geometry, False), plain),
        ]
        for relu in (True, False):
            expected = (plain + other).relu() if relu else plain + other
            for in_place in (True, False):
                out = convolve_add_fused(
                    x, packed, bias, geometry, relu, other=other.clone(), in_place=in_place
                )
                pairs.append((out, expected))
        if not all(torch.allclose(out, expected) for out, expected in pairs):
            return False
    return True


def _probe_onednn() -> bool:
    x, weight = _values(1, 4, 2, 4, 4), _values(4, 4, 3, 3, 3)
    out = convolve_onednn(x, weight, None, _geometry(weight))
    return torch.allclose(out, _convolve_plainly(x, weight, None))


def _probe_int8() -> bool:
    zero = 3
    for size in ((4, 4), (2, 4, 4)):
        x, weight, bias = _values(1, 4, *size), _values(4, 4, *(1 for _ in size)), torch.ones(4, device="cpu")
        geometry, scales = _geometry(weight), torch.ones(4, device="cpu")
        packed = pack_int8_weight(
            weight.to(torch.int8), scales, geometry, input_scale=1.0, input_zero=zero, input_shape=x.shape
        )
        source = ((x + zero).to(torch.uint8), 1.0, zero)
        packs = (packed, scales, torch.zeros(4, dtype=torch.int32, device="cpu"))
        plain = _convolve_plainly(x, weight, bias)
        to_float = Int8Arguments(source, packs, bias, geometry, None)
        to_uint8 = to_float._replace(target=(1.0, 100))
        if len(size) == 3:
            pairs = [(convolve_clips_int8(to_float), plain), (convolve_clips_int8(to_uint8), plain + 100)]
        else:
            other = (x + 100).to(torch.uint8)
            added = convolve_add_int8(to_uint8, True, other=other, scale=1.0, zero=100)
            pairs = [
                (convolve_int8(to_float, True), plain.relu()),
                (convolve_int8(to_uint8, False), plain + 100),
                (added, (plain + x).relu() + 100),
            ]
        if not all(torch.allclose(out.float(), expected) for out, expected in pairs):
            return False
    return True


def _probe_int8_sums() -> bool:
    """Whether sums over many channels are exact for the largest activations and weights of both signs."""
    channels, largest = 64, largest_int8_weight()
    x = torch.full((2, channels, 6, 6), 255.0, device="cpu").contiguous(memory_format=torch.channels_last)
    scales, zeros = torch.ones(channels, device="cpu"), torch.zeros(channels, dtype=torch.int32, device="cpu")
    for side in (1, 3):
        signs = _values(channels, channels, side, side).sign()
        for weight in (signs * largest, torch.full_like(signs, largest)):
            geometry = _geometry(weight)
            packed = pack_int8_weight(
                weight.to(torch.int8), scales, geometry, input_scale=1.0, input_zero=0, input_shape=x.shape
            )
            source = (x.to(torch.uint8), 1.0, 0)
            out = convolve_int8(Int8Arguments(source, (packed, scales, zeros), None, geometry, None), False)
            expected = _convolve_plainly(x, weight, None)
            if not torch.allclose(out, expected, rtol=1e-4, atol=1.0):
                return False
            # The fused sum: `other` has a scale and a zero point of its own, the result has another.
            step = float(expected.abs().max()) / 100
            to_uint8 = Int8Arguments(source, (packed, scales, zeros), None, geometry, (step, 7))
            other = (torch.arange(expected.numel(), device="cpu") % 256).view(expected.shape)
            other = other.to(torch.uint8).contiguous(memory_format=torch.channels_last)
            total = (expected + (other.float() - 5) * step / 3).relu()
            added = convolve_add_int8(to_uint8, True, other=other, scale=step / 3, zero=5)
            if float((added.float() - (total / step + 7).round().clamp(0, 255)).abs().max()) > 1:
                return False
    return True


@cache
def has_onednn_linear() -> bool:
    """Whether `multiply_onednn` works and is faster than PyTorch's operator: on CPUs with AVX-512."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and _works(_probe_linear)


def _probe_linear() -> bool:
    x, weight = _values(2, 3, 8, 1).flatten(2), _values(5, 8, 1, 1).flatten(1)
    bias = weight[:, 0].contiguous()
    is_equal = torch.equal(multiply_onednn(x, weight, bias), functional.linear(x, weight, bias))
    product = multiply_onednn(x[0].t(), torch.eye(3), None)
    return is_equal and torch.equal(product, x[0].t())
