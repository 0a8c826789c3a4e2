"""Whole networks in 8 bits beside the same in float32."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.models import optimize_for_inference, quantize_for_inference
from mmaction_lite.models.fast import int8
from mmaction_lite.models.fast.operators import has_int8
from mmaction_lite.models.fast.quantized import Quantize, Range
from mmaction_lite.models.non_local import NonLocal
from tests.inference.test_evaluate import Brightness
from tests.models.test_models import build, clip

pytestmark = pytest.mark.skipif(not has_int8(), reason="no x86 processor, or a PyTorch without oneDNN")
VNNI = torch.cpu._is_vnni_supported()


def test_a_range_is_clipped_if_that_reduces_the_error() -> None:
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


NON_LOCAL, MMACTION2 = {"non_local": "dot_product"}, {"lateral_norm": False, "slow_frames": "strided"}
NETWORKS: list[tuple[str, dict[str, Any], int]] = [  # the last: how often floats turn into bytes or back
    ("tsn_r50", {}, 1),
    ("tsm_r18", {}, 1),
    ("tsm_online_r10", {}, 1),
    ("tsm_r50", NON_LOCAL, 11),
    ("i3d_r50", NON_LOCAL, 11),
    ("slowonly_r50", {}, 1),
    ("slowfast_r50_4x16", {}, 16),
    ("slowfast_r50_8x8", MMACTION2, 16),
    ("r2plus1d_r18", {}, 1),
    ("r2plus1d_r34", {}, 1),
    ("r2plus1d_r50", {}, 1),
    ("r3d_r18", {}, 1),
    ("c2d_r50", {}, 1),
    ("c2d_r50", {"pool_padding": 0}, 2),
]


QUICK = ("tsm_r18", "slowfast_r50_4x16")  # one that folds time into the batch, one with two pathways
EACH_NETWORK = [pytest.param(*each, marks=[] if each[0] in QUICK else pytest.mark.slow) for each in NETWORKS]


@pytest.mark.parametrize("all_bits", [True, False])
@pytest.mark.parametrize(("name", "arguments", "turns"), EACH_NETWORK)
def test_quantized_networks_give_nearly_the_same_logits(
    name: str, arguments: dict[str, Any], turns: int, all_bits: bool, monkeypatch: Any
) -> None:
    if all_bits and not VNNI:
        pytest.skip("this processor adds products in 16 bits")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: all_bits)
    model, x = build(name, **arguments).eval(), clip(name, 4)
    for module in model.modules():
        if isinstance(module, NonLocal):  # as after some training, with negative outputs
            torch.nn.init.normal_(module.bn.weight)
    before = copy.deepcopy(model.state_dict())
    small = quantize_for_inference(model, [x[:2], x[2:]])
    other = torch.cat([x, x])[..., 3:]
    with torch.no_grad():
        small(x[:1, ..., :32, :32])  # weights are packed for the first size that comes
        for views in (x, other):
            expected, got = optimize_for_inference(model)(views), small(views)
            error = float((got - expected).norm() / expected.norm())
            assert error < (0.03 if all_bits else 0.04), error
            assert torch.equal(copy.deepcopy(small)(views), got)
            assert torch.equal(pickle.loads(pickle.dumps(small))(views), got)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert sum(isinstance(module, Quantize) for module in small.modules()) == turns


def test_unsuitable_models_are_refused(tiny: Any) -> None:
    with pytest.raises(UserError, match="Brightness contains no ResNet of mmaction_lite"):
        quantize_for_inference(Brightness(), [torch.zeros(1, 3, 4, 16, 16)])
    with pytest.raises(UserError, match="Recognizer contains no ResNet of mmaction_lite"):
        quantize_for_inference(build("tsm_mobilenetv2"), [clip("tsm_mobilenetv2")])
    with pytest.raises(UserError, match=r"is on cpu in torch\.bfloat16"):
        quantize_for_inference(build("tsn_r18").bfloat16(), [clip("tsn_r18")])
    small = quantize_for_inference(build("tsn_r18"), [clip("tsn_r18")])
    for done in (small, optimize_for_inference(build("tsn_r18"))):
        with pytest.raises(UserError, match="is optimized already"):
            quantize_for_inference(done, [clip("tsn_r18")])
        with torch.no_grad():
            assert torch.equal(optimize_for_inference(done)(clip("tsn_r18")), done(clip("tsn_r18")))
    with pytest.raises(UserError, match="clips is empty"):
        quantize_for_inference(build("tsn_r18"), [])
    views = TestViews(clips=DenseClips(clip_len=4), short_side=24, crop=CenterCrop(size=(16, 16)))
    samples = read_split(tiny, "val")
    wrongs: list[dict[str, Any]] = [{"compile": "default"}, {"precision": "bfloat16"}]
    for wrong in wrongs:
        with pytest.raises(UserError, match=r"int8 does not work with (compile|amp bfloat16)"):
            evaluate(build("tsn_r18"), samples, Protocol(views=views), calibration=samples, **wrong)
    gone = replace(samples, root=samples.root / "nowhere")
    with pytest.raises(UserError, match=r"none of 6 videos can be read for int8; .*nowhere.*no such file"):
        evaluate(build("tsn_r18"), samples, Protocol(views=views), calibration=gone)


def test_scores_in_int8_and_their_protocol(tiny: Any) -> None:
    views = TestViews(clips=DenseClips(clip_len=4), short_side=40, crop=CenterCrop(size=(32, 32)))
    samples, training = read_split(tiny, "val"), read_split(tiny, "train")
    model = build("slowonly_r50")
    model.fc = torch.nn.Linear(model.fc.in_features, 2)
    plain = evaluate(model, samples, Protocol(views=views))
    small = evaluate(model, samples, Protocol(views=views), calibration=training)
    assert "; int8; 6 videos" in small.protocol_line
    assert not np.array_equal(small.scores, plain.scores)
    np.testing.assert_allclose(small.scores, plain.scores, atol=0.1)


def test_a_quantized_network_that_computes_something_else_is_refused(monkeypatch: Any) -> None:
    model, x = build("tsn_r18"), clip("tsn_r18")
    exact = int8.convolve_int8
    monkeypatch.setattr(int8, "convolve_int8", lambda arguments, relu: exact(arguments, relu).flip(1))
    with pytest.raises(UserError, match=r"differ by \d+% from those in float32; expected at most 15%"):
        quantize_for_inference(model, [x])
