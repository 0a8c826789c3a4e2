"""Turns of few steps, and a worker without a framework."""

import sys

import pytest

from mmaction_lite.benchmark import comparison as comparison_module
from tests.benchmark.fake_worker import FAKE


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setitem(comparison_module.TURN_SECONDS, "cpu", 0.02)


@pytest.fixture
def fake(tmp_path):
    file = tmp_path / "worker_fake.py"
    file.write_text(FAKE)
    return [sys.executable, str(file)]
