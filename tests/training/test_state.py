"""What a training changes and saves."""

from dataclasses import replace

import torch

from mmaction_lite.distributed import DistributedContext
from mmaction_lite.models.sub_batch import SubBatchNorm2d
from mmaction_lite.training.state import build_state

CPU = DistributedContext(0, 1, 1, torch.device("cpu"))


def build(recipe, report=print):
    return build_state(recipe, recipe.model(num_classes=2), CPU, report=report)


def test_frozen_modules_stay_in_evaluation_mode(recipe):
    state = build(replace(recipe, freeze=("backbone.bn1",), batch_norm="partial"))
    state.model.eval()
    state.set_train_mode()
    norms = [m for m in state.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [False] * len(norms)
    assert state.model.training
    assert state.model.get_submodule("fc").training


def test_the_checkpoint_names_what_a_resumed_run_needs(recipe):
    state = build(recipe)
    assert state.checkpoint() == (state.model, {"optimizer": state.optimizer, "scaler": state.scaler})
    assert state.eval_model is state.model
    averaged = build(replace(recipe, ema_decay=0.9))
    assert averaged.checkpoint()[1]["average"] is averaged.average
    assert averaged.average is not None
    assert averaged.eval_model is averaged.average.module


def test_the_recipe_decides_about_normalization(recipe):
    lines = []
    build(replace(recipe, batch_norm="sync"), lines.append)
    assert lines == ["batch_norm sync: on cpu it is plain batch normalization"]
    split = build(replace(recipe, norm_clips=2))
    assert any(isinstance(module, SubBatchNorm2d) for module in split.model.modules())
