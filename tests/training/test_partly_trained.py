"""Trainings of a part of the network: gradual unfreezing and LoRA."""

from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from torch import nn

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.models import tsm_r10
from mmaction_lite.models.lora import LoRA, merged_weights
from mmaction_lite.optim import SGD, Unfreeze
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.training.loop import train
from mmaction_lite.weights.card import card_of, load
from mmaction_lite.weights.checkpoint import load_state
from tests.models.test_lora import Tokens
from tests.training.test_loop import die_after
from tests.training.test_training import make

compile_module = nn.Module.compile
pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_backbone_is_frozen_until_its_epoch(tiny, recipe, capsys):
    recipe = replace(recipe, unfreeze=Unfreeze(epoch=1, lr_share=0.5), precise_bn_clips=4, ema_decay=0.5)
    training, clips = make(recipe, tiny)
    start = {name: tensor.clone() for name, tensor in training.state.model.state_dict().items()}
    for number, batch in enumerate(clips.batches(training.batch_plan, 0, 4)):
        training.step(batch)
        if training.epoch == 1:
            training.validate(clips, Event())
        for state in (training.state.model.state_dict(), training.state.eval_model.state_dict()):
            changed = {name for name in state if not torch.equal(state[name], start[name])}
            if number < 3:
                assert changed == {"fc.weight", "fc.bias"}
            else:
                assert {"backbone.conv1.weight", "backbone.bn1.weight", "fc.weight"} < changed
    groups = training.state.optimizer.param_groups
    rates = {group["lr"] for group in groups}
    assert len(rates) == 2
    assert max(rates) == pytest.approx(2 * min(rates))
    assert "epoch 1: all layers are trained, with 0.5 times the learning rate" in capsys.readouterr().out


def resumed(recipe, tiny, folder, monkeypatch, step):
    """Content of `last.pt` of a run that dies after a step and is resumed."""
    with monkeypatch.context() as patch:
        die_after(patch, step)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tiny, folder)
    train(recipe, tiny, folder, resume=True)
    return load_state(folder / "last.pt")


def assert_equal_states(one, other):
    for name in ("model", "average"):
        assert one[name].keys() == other[name].keys()
        assert all(torch.equal(one[name][key], other[name][key]) for key in one[name])
    states = [saved["optimizer"]["state"] for saved in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][i]["exp_avg"], states[1][i]["exp_avg"]) for i in states[0])


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_run_resumes_across_the_border(tiny, recipe, tmp_path, monkeypatch, step):
    recipe = replace(recipe, unfreeze=Unfreeze(epoch=1), ema_decay=0.5, precise_bn_clips=8)
    train(recipe, tiny, tmp_path / "whole")
    found = resumed(recipe, tiny, tmp_path / "run", monkeypatch, step)
    assert_equal_states(load_state(tmp_path / "whole" / "last.pt"), found)


@pytest.fixture
def quick_compilation(monkeypatch):
    """Compile graphs and gradients without generating code, which takes minutes."""
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **_: compile_module(self, backend="aot_eager", dynamic=False)
    )


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_network_is_unfrozen(tiny, recipe, tmp_path):
    recipe = replace(recipe, model=Build(tsm_r10, width=8, dropout=0.0), unfreeze=Unfreeze(epoch=1))
    train(recipe, tiny, tmp_path / "plain")
    train(replace(recipe, compile="default"), tiny, tmp_path / "compiled")
    plain, compiled = (load_state(tmp_path / name / "last.pt")["model"] for name in ("plain", "compiled"))
    for name, tensor in plain.items():
        torch.testing.assert_close(tensor, compiled[name], rtol=1e-3, atol=1e-4)


def test_a_run_that_never_unfreezes_says_so(tiny, recipe, tmp_path, capsys):
    recipe = replace(recipe, epochs=1, unfreeze=Unfreeze(epoch=1))
    train(recipe, tiny, tmp_path / "run")
    printed = capsys.readouterr().err
    assert "of 0.08 M parameters trained, the others from epoch 1" in printed
    assert "note: only the classifier is trained: the training ends at epoch 1" in printed


def test_settings_of_the_command_line(recipe):
    changed = apply_overrides(recipe, ["unfreeze.lr_share=0.3", "unfreeze.epoch=4"])
    assert changed.unfreeze == Unfreeze(epoch=4, lr_share=0.3)
    assert apply_overrides(changed, ["unfreeze=none"]).unfreeze is None
    changed = apply_overrides(recipe, ["lora.rank=4", "lora.targets=('proj',)"])
    assert changed.lora == LoRA(rank=4, targets=("proj",))
    with pytest.raises(UserError, match="lora and unfreeze are both set; expected only one of them"):
        apply_overrides(changed, ["unfreeze.epoch=1"])
    with pytest.raises(UserError, match="lora is None in this recipe and has no field 'r'"):
        apply_overrides(recipe, ["lora.r=1"])


ADAPTED = {
    "model": Build(Tokens, width=16),
    "lora": LoRA(rank=2, targets=("q", "v", "fc1"), dropout=0.1),
    "optimizer": SGD(lr=0.1),
    "ema_decay": 0.5,
}


def test_adapters_are_merged_into_the_saved_weights(tiny, recipe, tmp_path, capsys):
    recipe = replace(recipe, **ADAPTED)
    train(recipe, tiny, tmp_path / "run")
    printed = capsys.readouterr().err
    assert "LoRA: 4 layers adapted; 482 of 4,482 parameters trained (448 in adapters)" in printed
    last, best = (load_state(tmp_path / "run" / name)["model"] for name in ("last.pt", "best.pt"))
    assert best.keys() == Tokens().state_dict().keys()
    assert last.keys() - best.keys() == {
        f"blocks.{i}.{layer}.lora_{x}" for i in (0, 1) for layer in ("qkv", "fc1") for x in "ab"
    }
    assert torch.equal(last["blocks.0.proj.weight"], best["blocks.0.proj.weight"])
    assert not torch.equal(last["blocks.0.fc1.weight"], best["blocks.0.fc1.weight"])
    model = load(tmp_path / "run" / "weights.safetensors", recipe)
    result = evaluate(model, read_split(tiny, "val", card_of(model).classes), card_of(model).val)
    with np.load(tmp_path / "run" / "val.npz") as saved:
        np.testing.assert_allclose(saved["scores"], result.scores, rtol=1e-5)
    with pytest.raises(UserError, match=r"last\.pt: holds the adapters .* not merged into"):
        load(tmp_path / "run" / "last.pt", recipe)
    with pytest.raises(UserError, match=r"last\.pt: holds the adapters"):
        train(recipe, tiny, tmp_path / "other", init_from=tmp_path / "run" / "last.pt")


def test_a_training_with_adapters_resumes_bit_for_bit(tiny, recipe, tmp_path, monkeypatch):
    recipe = replace(recipe, **ADAPTED | {"optimizer": recipe.optimizer})
    train(recipe, tiny, tmp_path / "whole")
    found = resumed(recipe, tiny, tmp_path / "run", monkeypatch, 4)
    assert_equal_states(load_state(tmp_path / "whole" / "last.pt"), found)
    assert len(found["optimizer"]["state"]) == 10  # 8 of adapters, 2 of the classifier


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"compile": "default"}, {"recompute": True}])
def test_adapters_with_other_settings(tiny, recipe, changes, tmp_path):
    """They learn the same within the precision."""
    recipe = replace(recipe, **ADAPTED | {"lora": LoRA(rank=2), "model": Build(Tokens)})
    losses = []
    for settings in ({}, changes):
        training, clips = make(replace(recipe, **settings), tiny)
        losses.append(
            [training.step(batch).loss.item() for batch in clips.batches(training.batch_plan, 0, 4)]
        )
        assert merged_weights(training.state.eval_model).keys() == Tokens().state_dict().keys()
    assert losses[1] == pytest.approx(losses[0], rel=2e-2 if "precision" in changes else 1e-4)
