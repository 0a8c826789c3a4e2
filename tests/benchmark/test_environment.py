"""The machine that a measurement was made on."""

import json
import platform

import pytest
import torch

from mmaction_lite.benchmark import environment as environment_module
from mmaction_lite.benchmark.environment import environment, measure_limits
from mmaction_lite.device import available_cores

CPU = torch.device("cpu")


def test_versions_and_machine():
    found = environment(CPU)
    assert found["device"] == "cpu"
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["cores"] == available_cores()
    assert found["processor"]
    assert None not in found.values()
    assert json.loads(json.dumps(found)) == found


def test_what_cannot_be_read_is_left_out(monkeypatch):
    monkeypatch.setattr(environment_module, "_cpuinfo", lambda name: None)
    monkeypatch.setattr(environment_module, "_commit", lambda: None)
    found = environment(CPU)
    assert found.keys() & {"clock_mhz", "commit"} == set()
    assert found["processor"]


def test_limits_are_amounts_over_the_fastest_time(monkeypatch):
    monkeypatch.setattr(environment_module, "_fastest", lambda run, device: 0.5)
    monkeypatch.setattr(torch, "randn", lambda *_, **options: torch.empty(1, 1, **options))
    limits = measure_limits(CPU, torch.float32)
    assert limits == {
        "multiply_adds": pytest.approx(2048**3 / 0.5 / 1e9),
        "bytes_copied": pytest.approx((256 << 20) / 0.5 / 1e9),
    }


def test_the_fastest_of_several_rounds(monkeypatch):
    clock = iter([0.0, 3.0, 3.0, 4.0, 4.0, 6.0])
    monkeypatch.setattr(environment_module.time, "perf_counter", lambda: next(clock))
    assert environment_module._fastest(lambda: None, CPU, rounds=3) == 1.0
