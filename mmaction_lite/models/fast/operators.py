"""Private operators of PyTorch's oneDNN backend, and whether they work in this process.

A release of PyTorch may rename, change or remove a private operator. Each group of operators therefore runs
once, on first use, on a tiny input, and its result is compared with that of the public operator. Callers that
find a group unavailable run the public operators instead. No other module of the package calls private
operators.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

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


ONE_BY_ONE = Geometry((1, 1), (0, 0), 1)
"""Of 1×1 convolutions of images."""


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


def convolution_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, needs_x: bool, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of input and weight of a convolution without bias.

    `torch.nn.grad` computes the same from shapes alone and therefore leaves channels-last memory format.
    """
    stride, padding, groups = geometry
    found = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        stride,
        padding,
        geometry.dilation,
        False,
        (0,) * len(padding),
        groups,
        (needs_x, needs_weight, False),
    )
    return found[0], found[1]


def multiply_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `x Wᵀ + b` by oneDNN for float32 x (..., in_features) and weight (out_features, in_features)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def has_fused() -> bool:
    """Whether convolutions with a fused sum and ReLU work; plain operators replace them elsewhere."""
    return _works(_probe_fused)


@cache
def has_onednn() -> bool:
    """Whether `convolve_onednn` works; `torch.nn.functional.conv3d` replaces it elsewhere."""
    return _works(_probe_onednn)


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


@cache
def has_onednn_linear() -> bool:
    """Whether `multiply_onednn` works, and oneDNN uses AVX-512."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and _works(_probe_linear)


@cache
def is_mkl_faster() -> bool:
    """Whether PyTorch's matrix products (MKL) are at least as fast as oneDNN's.

    MKL uses AVX-512 on processors of Intel, and AVX2 on those of AMD.
    """
    return not has_onednn_linear() or _processor().startswith("Intel")


def _processor() -> str:
    """Return the name of the processor, such as "Intel Xeon"; empty if PyTorch does not know it."""
    return str(torch.cpu.get_capabilities().get("cpu_name", ""))


def _probe_linear() -> bool:
    x, weight = _values(2, 3, 8, 1).flatten(2), _values(5, 8, 1, 1).flatten(1)
    bias = weight[:, 0].contiguous()
    is_equal = torch.equal(multiply_onednn(x, weight, bias), functional.linear(x, weight, bias))
    product = multiply_onednn(x[0].t(), torch.eye(3), None)
    return is_equal and torch.equal(product, x[0].t())
