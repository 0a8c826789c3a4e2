"""Private operators of PyTorch that are missing, fail or are wrong are replaced or reported."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.fast import operators
from tests.models.test_models import assert_same, build, clip

CPU_INFO = Path("/proc/cpuinfo")
REPLACED = [
    ("mkldnn", "_reorder_convolution_weight", "has_fused"),
    ("mkldnn", "_convolution_pointwise", "has_fused"),
    ("mkldnn", "_convolution_pointwise_", "has_fused"),
    ("aten", "mkldnn_convolution", "has_onednn"),
]


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
    probes = (operators.has_fused, operators.has_onednn, operators.is_mkl_faster)
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


def test_probes_leave_the_generator_and_the_defaults_of_the_caller_alone(monkeypatch: Any) -> None:
    state = torch.get_rng_state()
    plain = (operators.has_fused(), operators.has_onednn())
    for probe in (operators.has_fused, operators.has_onednn):
        probe.cache_clear()
    with torch.device("meta"), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert (operators.has_fused(), operators.has_onednn()) == plain
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("processor", "has_onednn", "expected"),
    [("Intel Xeon", True, True), ("AMD EPYC", True, False), ("", True, False), ("AMD EPYC", False, True)],
)
def test_mkl_is_faster_on_intel_and_where_onednn_is_not_fast(
    processor: str, has_onednn: bool, expected: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr(operators, "_processor", lambda: processor)
    monkeypatch.setattr(operators, "has_onednn_linear", lambda: has_onednn)
    assert operators.is_mkl_faster() == expected


def test_the_vendor_of_the_processor_is_the_one_that_linux_names() -> None:
    if not CPU_INFO.exists() or "vendor_id" not in CPU_INFO.read_text():
        pytest.skip("no vendor in /proc/cpuinfo")
    assert operators._processor().startswith("Intel") == ("GenuineIntel" in CPU_INFO.read_text())
