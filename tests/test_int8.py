"""Networks in 8 bits: each piece against the float arithmetic it stands for, and whole ones beside them."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from test_evaluate import Brightness
from test_models import build, clip
from torch import Tensor
from torch.nn import functional

from mmaction_lite.data.annotations import read_split
from mmaction_lite.data.clips import DenseClips
from mmaction_lite.data.transforms import CenterCrop, Normalize
from mmaction_lite.data.views import Views
from mmaction_lite.errors import UserError
from mmaction_lite.evaluate import evaluate
from mmaction_lite.models import optimize_for_inference, quantize_for_inference
from mmaction_lite.models.int8 import Int8Ending, Scale
from mmaction_lite.models.quantized import Quantize, Range
from mmaction_lite.models.resnet import max_of_bytes
from mmaction_lite.models.temporal import shift, shift_bytes


def bytes_like(*shape: int) -> Tensor:
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(8, 6), (21, 28), (7, 5), (2, 3), (1, 1), (1, 4)])
def test_the_maximum_of_bytes_is_that_of_floats(size: tuple[int, int]) -> None:
    x = bytes_like(3, 8, *size)
    got = max_of_bytes(x)
    assert torch.equal(got.float(), functional.max_pool2d(x.float(), 3, 2, 1))
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_shifted_bytes_are_shifted_floats(frames: int) -> None:
    x = bytes_like(2 * frames, 16, 3, 4)
    got = shift_bytes(x, 2, 3)
    assert torch.equal(got.float(), shift(x.float(), 2, 3))
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_a_range_is_cut_where_that_rounds_better() -> None:
    generator = torch.Generator().manual_seed(0)
    even, positive, signed = Range(), Range(), Range()
    for _ in range(2):
        x = torch.rand(2, 64, 128, 128, generator=generator)
        even.add(x)
        x[0, 1, 0, 0] = 10.0  # one of two millions
        positive.add(x)
        signed.add(x - 0.5)
    assert even.scale() == pytest.approx((1 / 255, 0), rel=1e-4)
    assert positive.scale() == pytest.approx((3 / 255, 0))
    scale = signed.scale()
    assert scale.step == pytest.approx((0.3 * 9.5 + 0.5) / 255, rel=1e-4)
    x = torch.linspace(-0.5, 0.5, 1000)
    assert float((scale.dequantize(scale.quantize(x)) - x).abs().max()) < 1.01 * scale.step


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (3, 3, 3)])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("is_added", [True, False])
@pytest.mark.parametrize("target", [Scale(0.05, 0), Scale(0.07, 100), None])
def test_a_convolution_in_bytes_is_that_of_the_numbers_they_stand_for(
    kernel: tuple[int, ...], relu: bool, is_added: bool, target: Scale | None
) -> None:
    if is_added and target is None:
        pytest.skip("what ends a block is always bytes")
    if not relu and target is not None and target.zero == 0:
        pytest.skip("what is not cut has numbers below zero")
    source, added = Scale(0.02, 30), Scale(0.04, 128)
    layout = torch.channels_last if len(kernel) == 2 else torch.channels_last_3d
    generator = torch.Generator().manual_seed(0)
    shape = (2, 16, 9, 7) if len(kernel) == 2 else (2, 16, 4, 9, 7)
    x, y = (
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).contiguous(memory_format=layout)
        for _ in range(2)
    )
    weight = torch.randint(-60, 61, (16, 16, *kernel), generator=generator).float()
    weight.view(16, -1)[:, 0] = 127  # steps are whole: weights lose nothing
    weight *= 0.005 / kernel[0]
    bias = torch.randn(16, generator=generator)
    run = functional.conv2d if len(kernel) == 2 else functional.conv3d
    expected = run(source.dequantize(x), weight, bias, padding=tuple(k // 2 for k in kernel))
    if is_added:
        expected += added.dequantize(y)
    expected = expected.relu() if relu else expected
    ending = Int8Ending(relu, source, target, added if is_added else None)
    got = ending.convolve(x, weight, bias, (1,) * len(kernel), 1, y if is_added else None)
    if target is None:
        torch.testing.assert_close(got, expected, rtol=1e-2, atol=2e-2)
    else:
        assert float((got.float() - target.quantize(expected).float()).abs().max()) <= 1.0
        assert got.float().std() > 10


NAMES: dict[str, dict[str, Any]] = {
    "tsn_r50": {},
    "tsm_r18": {},
    "i3d_r50": {"non_local": "dot_product"},
    "slowonly_r50": {},
    "slowfast_r50_4x16": {},
    "r2plus1d_r34": {},
    "r2plus1d_r50": {},
    "r3d_r18": {},
    "c2d_r50": {},
}


@pytest.mark.parametrize("has_vnni", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_networks_in_bytes_say_nearly_the_same(name: str, has_vnni: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: has_vnni)
    model, x = build(name, **NAMES[name]).eval(), clip(name, 4)
    before = copy.deepcopy(model.state_dict())
    small = quantize_for_inference(model, [x[:2], x[2:]])
    other = torch.cat([x, x])[..., 3:]
    with torch.no_grad():
        for views in (x, other):
            expected, got = optimize_for_inference(model)(views), small(views)
            error = float((got - expected).norm() / expected.norm())
            assert error < (0.03 if has_vnni else 0.04), error
            assert torch.equal(copy.deepcopy(small)(views), got)
            assert torch.equal(pickle.loads(pickle.dumps(small))(views), got)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    converters = [module for module in small.modules() if isinstance(module, Quantize)]
    places = {"i3d_r50": 1 + 2 * 5, "slowfast_r50_4x16": 2 * 8}
    assert len(converters) == places.get(name, 1)


def test_what_cannot_be_done_in_bytes_is_said(tiny: Any) -> None:
    with pytest.raises(UserError, match="Brightness has no residual network"):
        quantize_for_inference(Brightness(), [torch.zeros(1, 3, 4, 16, 16)])
    with pytest.raises(UserError, match="no residual network of this package"):
        quantize_for_inference(build("tsm_mobilenetv2"), [clip("tsm_mobilenetv2")])
    with pytest.raises(UserError, match="no clip"):
        quantize_for_inference(build("tsn_r18"), [])
    views = Views(clips=DenseClips(clip_len=4), short_side=24, crop=CenterCrop(size=(16, 16)))
    samples = read_split(tiny, "val")
    wrongs: list[dict[str, Any]] = [{"compile": "default"}, {"precision": "bfloat16"}]
    for wrong in wrongs:
        with pytest.raises(UserError, match="int8 is for processors"):
            evaluate(build("tsn_r18"), samples, views, Normalize(), calibration=samples, **wrong)


def test_scores_in_bytes_and_what_is_said_of_them(tiny: Any) -> None:
    views = Views(clips=DenseClips(clip_len=4), short_side=40, crop=CenterCrop(size=(32, 32)))
    samples, training = read_split(tiny, "val"), read_split(tiny, "train")
    model = build("slowonly_r50")
    model.fc = torch.nn.Linear(model.fc.in_features, 2)
    plain = evaluate(model, samples, views, Normalize())
    small = evaluate(model, samples, views, Normalize(), calibration=training)
    assert "; int8; 6 videos" in small.protocol
    assert not np.array_equal(small.scores, plain.scores)
    np.testing.assert_allclose(small.scores, plain.scores, atol=0.1)
