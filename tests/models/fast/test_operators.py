"""Private operators of PyTorch that are missing, fail or are wrong are replaced or reported."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.models import optimize_for_inference, quantize_for_inference
from mmaction_lite.models.fast import operators
from mmaction_lite.models.fast.quantized import can_quantize
from tests.models.test_models import assert_same, build, clip

REPLACED = [
    ("mkldnn", "_reorder_convolution_weight", "has_fused"),
    ("mkldnn", "_convolution_pointwise", "has_fused"),
    ("mkldnn", "_convolution_pointwise_", "has_fused"),
    ("aten", "mkldnn_convolution", "has_onednn"),
]
QUANTIZED = ["qconv_prepack", "qconv2d_pointwise", "qconv3d_pointwise"]


class Without:
    """A namespace of `torch.ops` in which one operator is missing, raises, or returns zeros."""

    def __init__(self, namespace: str, name: str, fault: str) -> None:
        self._namespace, self._name, self._fault = getattr(torch.ops, namespace), name, fault

    def __getattr__(self, name: str) -> Any:
        if name != self._name:
            return getattr(self._namespace, name)
        if self._fault == "missing":
            raise AttributeError(name)
        return Faulty(getattr(self._namespace, name), self._fault)


class Faulty:
    def __init__(self, operator: Any, fault: str) -> None:
        self._operator, self._fault = operator, fault

    @property
    def binary(self) -> "Faulty":
        return Faulty(self._operator.binary, self._fault)

    def __call__(self, *arguments: Any) -> Tensor:
        if self._fault == "raising":
            raise RuntimeError("expected another number of arguments")
        return torch.zeros_like(self._operator(*arguments))


@pytest.fixture(autouse=True)
def new_probes() -> Iterator[None]:
    probes = (operators.has_fused, operators.has_onednn, operators.has_int8)
    for probe in probes:
        probe.cache_clear()
    yield
    for probe in probes:
        probe.cache_clear()


@pytest.mark.parametrize("fault", ["missing", "raising", "wrong"])
@pytest.mark.parametrize(("namespace", "name", "probe"), REPLACED)
def test_plain_operators_replace_one_that_does_not_work(
    namespace: str, name: str, probe: str, fault: str, monkeypatch: Any
) -> None:
    if fault == "wrong" and name == "_reorder_convolution_weight":
        pytest.skip("a blocked weight cannot be filled with zeros")
    x = clip("r3d_r18")
    with torch.no_grad():
        expected = optimize_for_inference(build("r3d_r18"))(x)
        monkeypatch.setattr(torch.ops, namespace, Without(namespace, name, fault))
        getattr(operators, probe).cache_clear()
        assert_same(optimize_for_inference(build("r3d_r18"))(x), expected)
    assert not getattr(operators, probe)()


@pytest.mark.parametrize("fault", ["missing", "raising", "wrong"])
@pytest.mark.parametrize("name", QUANTIZED)
def test_int8_is_refused_where_an_operator_does_not_work(name: str, fault: str, monkeypatch: Any) -> None:
    if not operators.has_int8():
        pytest.skip("no x86 processor, or a PyTorch without oneDNN")
    if fault == "wrong" and name == "qconv_prepack":
        pytest.skip("a blocked weight cannot be filled with zeros")
    model, x = build("tsn_r18"), clip("tsn_r18")
    small = quantize_for_inference(model, [x])
    monkeypatch.setattr(torch.ops, "onednn", Without("onednn", name, fault))
    operators.has_int8.cache_clear()
    assert not can_quantize(model)
    for use in (lambda: quantize_for_inference(model, [x]), lambda: small(x)):
        with torch.no_grad(), pytest.raises(UserError, match="int8 needs an x86 processor"):
            use()


def test_int8_is_refused_on_arm(monkeypatch: Any) -> None:
    monkeypatch.setattr(operators.platform, "machine", lambda: "aarch64")
    assert not operators.has_int8()


def test_vnni_is_false_where_pytorch_cannot_tell(monkeypatch: Any) -> None:
    monkeypatch.delattr(torch.cpu, "_is_vnni_supported")
    assert operators.has_vnni() is False


def test_probes_leave_the_generator_and_the_defaults_of_the_caller_alone(monkeypatch: Any) -> None:
    state = torch.get_rng_state()
    plain = (operators.has_fused(), operators.has_onednn(), operators.has_int8())
    for probe in (operators.has_fused, operators.has_onednn, operators.has_int8):
        probe.cache_clear()
    with torch.device("meta"), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert (operators.has_fused(), operators.has_onednn(), operators.has_int8()) == plain
    assert torch.equal(torch.get_rng_state(), state)


def test_int8_is_refused_where_sums_saturate(monkeypatch: Any) -> None:
    """Kernels that sum pairs of products in 16 bits give wrong results without an error."""
    if not operators.has_int8():
        pytest.skip("no x86 processor, or a PyTorch without oneDNN")
    exact = operators.convolve_int8

    def saturating(arguments: operators.Int8Arguments, relu: bool) -> Tensor:
        out = exact(arguments, relu)
        return out.clamp(-32768, 32767) if out.is_floating_point() else out

    monkeypatch.setattr(operators, "convolve_int8", saturating)
    operators.has_int8.cache_clear()
    assert operators._works(operators._probe_int8)  # small values do not show it
    assert not operators.has_int8()
