"""Quantized convolutions and shifts, compared with float arithmetic."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmaction_lite.models.fast.int8 import Int8Epilogue, Scale
from mmaction_lite.models.fast.operators import has_int8
from mmaction_lite.models.fast.temporal import shift, shift_uint8

pytestmark = pytest.mark.skipif(not has_int8(), reason="no x86 processor, or a PyTorch without oneDNN")
VNNI = torch.cpu._is_vnni_supported()


def bytes_like(*shape: int) -> Tensor:
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


@pytest.mark.parametrize("zero", [0, 17])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_uint8_shift_equals_the_float_shift(frames: int, zero: int) -> None:
    x = bytes_like(2 * frames, 16, 3, 4)
    for causal in (False, True):
        got = shift_uint8(x, 2, 3, zero=zero, causal=causal)
        assert torch.equal(got.float() - zero, shift(x.float() - zero, 2, 3, causal))
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (3, 3, 3)])
@pytest.mark.parametrize(
    ("relu", "is_added", "target"),
    [
        (True, False, Scale(0.05, 0)),
        (True, False, Scale(0.07, 100)),
        (True, False, None),
        (False, False, Scale(0.07, 100)),
        (False, False, None),
        (True, True, Scale(0.05, 0)),
        (True, True, Scale(0.07, 100)),
        (False, True, Scale(0.07, 100)),
    ],
)
def test_a_quantized_convolution_equals_the_float_convolution(
    kernel: tuple[int, ...], relu: bool, is_added: bool, target: Scale | None
) -> None:
    source, added = Scale(0.02, 30), Scale(0.04, 128)
    layout = torch.channels_last if len(kernel) == 2 else torch.channels_last_3d
    generator = torch.Generator().manual_seed(0)
    shape = (2, 16, 9, 7) if len(kernel) == 2 else (2, 16, 4, 9, 7)
    x, y = (
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).contiguous(memory_format=layout)
        for _ in range(2)
    )
    weight = torch.randint(-60, 61, (16, 16, *kernel), generator=generator).float()
    weight.view(16, -1)[:, 0] = 127 if VNNI else 63  # steps are whole: weights lose nothing
    weight *= 0.005 / kernel[0]
    bias = torch.randn(16, generator=generator)
    run = functional.conv2d if len(kernel) == 2 else functional.conv3d
    expected = run(source.dequantize(x), weight, bias, padding=tuple(k // 2 for k in kernel))
    if is_added:
        expected += added.dequantize(y)
    expected = expected.relu() if relu else expected
    epilogue = Int8Epilogue(relu, source, target, added if is_added else None)
    got = epilogue.convolve(x, weight, bias, (1,) * len(kernel), 1, y if is_added else None)
    if target is None:
        torch.testing.assert_close(got, expected, rtol=1e-2, atol=2e-2)
    else:
        assert float((got.float() - target.quantize(expected).float()).abs().max()) <= 1.0
        assert got.float().std() > 10
