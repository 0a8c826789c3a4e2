"""Tests that need a CUDA GPU; skipped without one."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmaction_lite import models
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.device import configure_process
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.inference.stream import Stream
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.fast.memory_format import store_channels_last
from mmaction_lite.optim import SGD
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.training.gradients import Gradients
from mmaction_lite.training.loop import train
from mmaction_lite.weights.card import ModelCard, card_of, load, save_weights
from tests.conftest import brightening
from tests.training.test_loop import die_after, rows

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and there is none"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # PyTorch's compiler warns of its own parts
]
NETWORKS = {
    "tsn_r50": (8, 96),
    "tsm_r50": (8, 96),
    "i3d_r50": (16, 96),
    "slowfast_r50_4x16": (32, 96),
    "slowonly_r50": (4, 96),
    "r2plus1d_r34": (8, 96),
    "r2plus1d_r18": (8, 56),
}


@pytest.fixture(autouse=True)
def exact():
    """Compute in float32 as on a CPU."""
    configure_process(torch.device("cuda"))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    frames, side = NETWORKS[name]
    model = getattr(models, name)(num_classes=5, dropout=0.0, width=64 if "slowfast" in name else 16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)  # no block is the identity
    return model, torch.randn(2, 3, frames, side, side)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_equal_those_of_a_cpu(name):
    model, x = network(name)
    with torch.inference_mode():
        expected = model.eval()(x)
        for there in (model, optimize_for_inference(model)):
            got = copy.deepcopy(there).cuda()(x.cuda()).cpu()
            assert float((got - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_equal_those_of_a_cpu(name):
    model, x = network(name)
    grads = []
    for device in ("cpu", "cuda"):
        there = copy.deepcopy(model).double().to(device).train()
        there(x.double().to(device)).logsumexp(1).sum().backward()
        grads.append([p.grad.cpu() for p in there.parameters() if p.grad is not None])
    for expected, got in zip(*grads, strict=True):
        assert float((got - expected).norm()) <= 1e-9 * float(expected.norm()) + 1e-12


@pytest.mark.parametrize("name", ["r2plus1d_r34", "slowfast_r50_4x16"])
def test_compiled_gradients_are_those_of_eager(name):
    """In bfloat16 and with weights laid out as trainings do; r2plus1d_r34 ends with single frames."""
    model, x = network(name)
    model = model.cuda().train()
    store_channels_last(model, is_trained=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)
            module.eval()  # or small differences would become large ones
    grads = []
    for is_compiled in (False, True):
        there = copy.deepcopy(model)
        if is_compiled:
            there.compile(dynamic=False)
        with torch.autocast("cuda", torch.bfloat16):
            logits = there(x.cuda())
        nn.functional.cross_entropy(logits.float(), torch.arange(2, device="cuda")).backward()
        grads.append(torch.cat([p.grad.flatten() for p in there.parameters() if p.grad is not None]))
    eager, compiled = grads
    assert float((compiled - eager).norm()) < 0.1 * float(eager.norm())


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_parts_add_up_to_the_step(recipe, mode):
    """A replayed CUDA graph writes to the same memory; no gradient of a part may be lost."""
    torch.manual_seed(0)
    pixels = torch.randint(256, (8, 1, 4, 20, 28, 3), dtype=torch.uint8, device="cuda")
    labels = torch.arange(8, device="cuda") % 2
    model = recipe.model(num_classes=2, dropout=0.0).cuda().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # or parts would be normalized apart
    whole, parts = (
        replace(recipe, compile=compile, clips_per_device=n) for compile, n in ((None, None), (mode, 2))
    )
    found: list[tuple[Tensor, list[Tensor]]] = []
    loss = torch.empty(())
    for settings in (whole, parts):
        there = copy.deepcopy(model)
        if settings.compile:
            there.compile(mode=settings.compile, dynamic=False)
        gradients = Gradients(
            there, settings, None, torch.amp.GradScaler("cuda", enabled=False), may_shrink=False, report=print
        )
        for _ in range(4):  # the first passes record the CUDA graph, later ones replay it
            there.zero_grad()
            loss, _ = gradients.add(pixels, labels, np.random.default_rng(0))
        found.append((loss, [p.grad.clone() for p in there.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0][0], found[1][0])
    for expected, got in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


def losses(run):
    return [row["loss"] for row in rows(run) if "split" not in row]


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"compile": "default"}, 1e-3),
        ({"compile": "reduce-overhead"}, 1e-3),
        ({"precision": "bfloat16"}, 0.1),
        ({"precision": "float16"}, 0.05),
        ({"precision": "bfloat16", "compile": "reduce-overhead"}, 0.1),
        ({"recompute": True}, 1e-3),
    ],
    ids=str,
)
def test_trainings_equal_those_of_a_cpu(tiny, recipe, tmp_path, changes, tolerance):
    recipe = replace(recipe, optimizer=SGD(lr=0.01), model=replace_dropout(recipe), epochs=3, ema_decay=0.9)
    train(recipe, tiny, tmp_path / "cpu", device="cpu")
    train(replace(recipe, **changes), tiny, tmp_path / "gpu", device="cuda")
    np.testing.assert_allclose(losses(tmp_path / "gpu"), losses(tmp_path / "cpu"), rtol=tolerance)


def replace_dropout(recipe):
    return type(recipe.model)(recipe.model.builder, **recipe.model.arguments | {"dropout": 0.0})


def test_a_killed_training_resumes_to_the_same_result(tiny, recipe, tmp_path, monkeypatch):
    recipe = replace(recipe, precision="float16", ema_decay=0.9, epochs=4)
    train(recipe, tiny, tmp_path / "whole", device="cuda")
    with monkeypatch.context() as patch:
        die_after(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tiny, tmp_path / "parts", device="cuda")
    train(recipe, tiny, tmp_path / "parts", device="cuda", resume=True)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=0.02)


def test_parts_are_halved_until_the_memory_holds_them(tiny, recipe, tmp_path, capsys):
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # Reserved, too: graphs that other tests recorded keep what they need.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (128 << 20)) / total)
    try:
        clips = replace(recipe.train.clips, num_segments=8)
        big = replace(
            recipe.train, clips=clips, crop=replace(recipe.train.crop, size=(160, 160)), short_side=176
        )
        train(replace(recipe, train=big, batch_size=12, epochs=1), tiny, tmp_path / "run", device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert "at a time and accumulated gradients" in " ".join(capsys.readouterr().err.split())


def test_reduced_precision_and_compilation_score_alike(tiny, recipe, tmp_path):
    train(recipe, tiny, tmp_path / "run", device="cuda")
    samples = read_split(tiny, "val")
    results = []
    fast: dict[str, Any] = {"precision": "bfloat16", "compile": "reduce-overhead"}
    for options in ({}, fast):
        model = load(tmp_path / "run").cuda()
        card = card_of(model)
        results.append(evaluate(model, samples, card.test, **options))
    np.testing.assert_allclose(results[0].scores, results[1].scores, atol=0.03)
    assert "bfloat16" in results[1].protocol_line


def test_a_stream_equals_that_of_a_cpu(recipe, tmp_path):
    recipe = replace(recipe, model=Build(models.tsm_online_r50, width=16, dropout=0.0))
    card = ModelCard.of(recipe, ("down", "up"))
    torch.manual_seed(0)
    save_weights(tmp_path / "online.safetensors", card.build().state_dict(), card)
    path = tmp_path / "online.safetensors"
    on_cpu, on_gpu = (Stream(path, frame_interval=1, device=device) for device in ("cpu", "cuda"))
    for frame in brightening(0, 20):
        expected, found = on_cpu.push(frame), on_gpu.push(frame)
        assert expected is not None
        assert found is not None
        # As for clips above: convolutions of a GPU sum in another order.
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4 * np.abs(expected.logits).max())
