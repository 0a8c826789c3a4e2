import pytest
import torch

from mmaction_lite.data.sources.encoding import x264_options


@pytest.mark.parametrize(("capability", "added"), [("AVX2", {}), ("AVX512", {"x264-params": "asm=AVX2"})])
def test_code_that_differs_between_runs_is_off(monkeypatch, capability, added):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert x264_options(crf="20") == {"crf": "20", **added}
