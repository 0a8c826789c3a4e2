"""Steps and validations of a training, without its loop and folder."""

from dataclasses import replace
from threading import Event

import pytest
import torch

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.data.loading.workers import IN_PROCESS
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.models import videomae_small
from mmaction_lite.optim import AdamW
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.training.clips import TrainingClips, read_training_split
from mmaction_lite.training.loop import train
from mmaction_lite.training.run_folder import Progress
from mmaction_lite.training.state import build_state
from mmaction_lite.training.training import Training, class_weights, seed_step
from mmaction_lite.weights.checkpoint import load_state

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = DistributedContext(0, 1, 1, torch.device("cpu"))


def make(recipe, data, **changes):
    """A training with its clips, as `train` makes them."""
    samples = read_training_split(data)
    torch.manual_seed(0)
    state = build_state(recipe, recipe.model(num_classes=2), CPU, report=print)
    arguments = {"task": recipe.task, "num_classes": 2, "seed": 0, "may_shrink": True, "report": print}
    plan = BatchPlan(len(samples), recipe.batch_size)
    training = Training(recipe, state, Progress(), plan, CPU, **arguments | changes)
    val_samples = read_split(data, "val", samples.classes)
    clips = TrainingClips(
        recipe,
        samples,
        val_samples,
        CPU,
        task=recipe.task,
        workers=IN_PROCESS,
        caches=Caches(),
        seed=0,
        report=print,
    )
    state.set_train_mode()
    return training, clips


def test_a_training_is_its_steps_and_validations(tiny, recipe, tmp_path):
    """The loop around them adds files and logs, and changes no bit."""
    recipe = replace(recipe, ema_decay=0.5, precise_bn_clips=8)
    done = train(recipe, tiny, tmp_path / "run")
    training, clips = make(recipe, tiny)
    results, validations = [], []
    for batch in clips.batches(training.batch_plan, 0, training.last_step):
        assert not training.is_over
        results.append(training.step(batch))
        if training.is_validation_due:
            validations.append(training.validate(clips, Event()))
            training.progress.record_validation("top1", validations[-1].metrics["top1"])
    assert training.is_over
    assert training.progress == done
    saved = load_state(tmp_path / "run" / "last.pt")["model"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in training.state.model.state_dict().items())
    assert (len(results), len(validations)) == (6, 2)
    assert results[0].lr < results[1].lr
    assert all(result.loss.isfinite() and 0 <= result.correct <= 1 for result in results)


def test_a_validation_scores_the_averaged_weights_and_returns_to_training_mode(tiny, recipe):
    training, clips = make(replace(recipe, ema_decay=0.5), tiny)
    for batch in clips.batches(training.batch_plan, 0, 2):
        training.step(batch)
    found = training.validate(clips, Event())
    assert found is not None
    assert training.state.model.training
    assert training.state.average is not None
    average = training.state.average.module
    assert training.state.eval_model is average
    assert (found.scores == evaluate(average, clips.val_samples, recipe.val_protocol).scores).all()
    plain = evaluate(training.state.model, clips.val_samples, recipe.val_protocol)
    assert (found.scores != plain.scores).any()


def test_a_stopped_validation_has_no_result(tiny, recipe):
    training, clips = make(recipe, tiny)
    stop = Event()
    stop.set()
    assert training.validate(clips, stop) is None


def test_validations_are_due_by_epoch_and_end_by_patience(tiny, recipe):
    training, _ = make(replace(recipe, epochs=4, val_every=2, patience=2), tiny)  # 3 steps an epoch
    due = []
    for training.progress.step in range(13):
        due += [training.progress.step] * training.is_validation_due
    assert due == [6, 12]
    assert not training.is_over
    scores = [training.progress.record_validation("top1", score) for score in (0.5, 0.5, 0.4)]
    assert scores == [True, False, False]
    assert training.is_over
    assert (training.progress.best_score, training.progress.bad_validations) == (0.5, 2)


def test_the_seed_of_a_step_depends_on_seed_step_and_rank():
    drawn = set()
    for numbers in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        seed_step(*numbers, torch.device("cpu"))
        first = torch.rand(1).item()
        seed_step(*numbers, torch.device("cpu"))
        assert torch.rand(1).item() == first
        drawn.add(first)
    assert len(drawn) == 4


def test_class_weights_of_a_recipe(tiny, recipe):
    samples, cpu = read_training_split(tiny), torch.device("cpu")
    assert class_weights(recipe, samples, cpu) is None
    given = class_weights(replace(recipe, class_weights=(0.0, 1.0)), samples, cpu)
    balanced = class_weights(replace(recipe, class_weights="balanced"), samples, cpu)
    assert given is not None
    assert given.tolist() == [0, 1]
    whole = class_weights(replace(recipe, class_weights=(1, 2)), samples, cpu)
    assert whole is not None
    assert whole.dtype == torch.float32
    assert balanced is not None
    assert balanced.tolist() == [1, 1]  # as many clips of each class


def test_clipping_bounds_the_gradients(tiny, recipe):
    training, clips = make(replace(recipe, max_grad_norm=1e-3, optimizer=AdamW(lr=0.0)), tiny)
    training.step(next(iter(clips.batches(training.batch_plan, 0, 1))))
    norms = [p.grad.norm() for p in training.state.model.parameters() if p.grad is not None]
    assert torch.stack(norms).norm() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("is_transformer", [False, True])
def test_the_heap_is_trimmed_before_a_step_of_a_transformer(tiny, recipe, monkeypatch, is_transformer):
    trimmed = []
    monkeypatch.setattr("mmaction_lite.training.training.release_memory", lambda: trimmed.append(1))
    thin = Build(videomae_small, width=8, depth=1, patch=4)
    training, clips = make(replace(recipe, model=thin) if is_transformer else recipe, tiny)
    training.step(next(iter(clips.batches(training.batch_plan, 0, 1))))
    assert len(trimmed) == is_transformer
