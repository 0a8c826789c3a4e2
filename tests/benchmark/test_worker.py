"""One measured process."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmaction_lite.benchmark import worker
from mmaction_lite.benchmark.worker import Stopwatch, Work, failure, kind
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.distributed import init_distributed
from mmaction_lite.errors import UserError
from mmaction_lite.training.training import Training


@pytest.fixture
def work(recipe, monkeypatch, one_thread):
    """The steps of a recipe with all that a training may have."""
    recipe = replace(recipe, ema_decay=0.5, freeze=("backbone.conv1",), recompute=True, mixing=Mixing())
    monkeypatch.setattr(worker, "find_setting", lambda name: SimpleNamespace(build=lambda: recipe))
    options = {"setting": "tiny", "precision": "float32", "compile": None, "input": (4, 4, 20, 28)}
    options |= {"batch_size": 4, "workers": 0, "video": None, "frames": None}
    with init_distributed("cpu") as context:
        yield Work(options, context)


def test_the_benchmark_takes_the_steps_of_a_training(work, monkeypatch):
    seen, step = [], Training.step

    def recorded(self, batch, *arguments):
        seen.append(step(self, batch, *arguments))
        return seen[-1]

    monkeypatch.setattr(Training, "step", recorded)
    before = {name: tensor.clone() for name, tensor in work.model.state_dict().items()}
    (laps,) = work.answer({"phase": "stages", "steps": 1}, 0.0)["steps"]
    assert list(laps) == ["iteration", "copy", "normalise", "forward", "backward", "optimizer"]
    work.answer({"phase": "train", "steps": 2}, 0.0)
    assert len(seen) == work.training.progress.step == 3
    assert int(work.state.average.n_averaged) == 3
    changed = {
        name for name, tensor in work.model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert "fc.weight" in changed
    assert "backbone.conv1.weight" not in changed
    assert all(parameter.grad is not None for parameter in work.model.fc.parameters())


def test_training_continues_in_training_mode_after_inference(work):
    work.answer({"phase": "infer", "steps": 1}, 0.0)
    work.model.eval()
    work.answer({"phase": "train", "steps": 1}, 0.0)
    assert work.model.training
    assert not work.model.get_submodule("backbone.conv1").training


def test_operators_and_kernels_are_told_apart():
    for name, expected in {
        "aten::mkldnn_convolution": "products",
        "aten::convolution_backward": "products",
        "aten::addmm_": "products",
        "mkldnn::_linear_pointwise": "products",
        "sm90_xmma_wgrad_implicit_gemm_bf16": "products",
        "aten::native_batch_norm_backward": "normalisation",
        "triton_poi_fused__native_batch_norm_convolution_backward_3": "other",
        "aten::add_": "other",
        "aten::threshold_backward": "other",
    }.items():
        assert kind(name) == expected, name


def test_laps_add_up_to_the_iteration():
    watch = Stopwatch(torch.device("cpu"))
    watch.start()
    model = nn.Linear(3, 2)
    watch.lap("normalise")
    model(torch.zeros(1, 3))
    watch.lap("forward")
    watch.lap("backward")
    seconds = watch.stop()
    assert set(seconds) == {"iteration", "normalise", "forward", "backward"}
    assert sum(value for name, value in seconds.items() if name != "iteration") <= seconds["iteration"]


def test_a_failure_is_one_line():
    for error in (UserError("no clip can be read"), KeyError("weights"), ValueError("two\nlines")):
        (message,) = failure(error).values()
        assert "\n" not in message
        assert str(error).split("\n")[0] in message
