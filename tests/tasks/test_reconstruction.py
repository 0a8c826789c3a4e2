"""The task of pre-training, and a pre-training from start to fine-tuning."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmaction_lite import load
from mmaction_lite.data.loading.workers import IN_PROCESS
from mmaction_lite.data.views.crops import CenterCrop, RandomCrop
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.models import videomae_small
from mmaction_lite.models.videomae_pretrain import videomae_pretrain_small
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.tasks.named import task_from_json, task_to_json, uses_labels
from mmaction_lite.tasks.reconstruction import CLASSES, Reconstruction
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.task import Task
from mmaction_lite.training.loop import train
from mmaction_lite.weights.card import card_of

TASK = Reconstruction()
SIZE = {"width": 12, "depth": 1, "heads": 3, "patch": 4}


def test_it_is_a_task():
    assert isinstance(TASK, Task)
    assert pickle.loads(pickle.dumps(TASK)) == TASK
    assert task_from_json(task_to_json(TASK)) == TASK
    assert not uses_labels(TASK)
    assert uses_labels(SingleLabel())


def test_the_loss_is_the_output_and_scores_are_explained_variance():
    errors = torch.tensor([[0.25], [1.5], [0.75]])
    targets = torch.zeros(3, dtype=torch.int64)
    assert TASK.loss(errors, targets, label_smoothing=0.1).tolist() == [0.25, 1.5, 0.75]
    assert TASK.correct(errors, targets).isnan().all()
    scores = TASK.probabilities(errors).numpy()
    assert scores.tolist() == [[0.75], [0.0], [0.25]]
    assert TASK.metrics(scores, np.zeros(3)) == {"explained": pytest.approx(1 / 3)}
    assert TASK.shown_metrics(1) == ("explained",)
    assert TASK.log_loss(scores, np.zeros(3)) == pytest.approx(2 / 3)
    assert TASK.num_logits(5) == 1
    assert TASK.targets(np.array([3, 4]), np.array([1, 1]), 5).tolist() == [0, 0]
    with pytest.raises(ValueError, match="the largest target is 3; expected 0"):
        TASK.check_targets(np.array([0, 3]), 1)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_weights_of_a_pre_training_start_a_fine_tuning(tiny, tmp_path, recipe):
    (tmp_path / "videos").mkdir()
    for path in sorted(tiny.rglob("*.mp4")):
        (tmp_path / "videos" / path.name).symlink_to(path)
    clips = SegmentFrames(num_segments=4)
    views = replace(recipe.val, clips=clips, crop=CenterCrop(size=(20, 28)))
    own = replace(
        recipe,
        model=Build(videomae_pretrain_small, decoder_depth=1, mask_ratio=0.7, **SIZE),
        task=TASK,
        train=replace(recipe.train, clips=clips, crop=RandomCrop(size=(20, 28))),
        val=views,
        test=views,
        label_smoothing=0.0,
    )
    train(own, tmp_path / "videos", tmp_path / "pre", workers=IN_PROCESS)
    pretrained = load(tmp_path / "pre" / "weights.safetensors")
    assert card_of(pretrained).classes == CLASSES
    row = (tmp_path / "pre" / "metrics.jsonl").read_text()
    assert "top1" not in row
    assert '"explained"' in row

    tuned = replace(own, model=Build(videomae_small, **SIZE), task=SingleLabel(), epochs=1)
    tuned = replace(tuned, freeze=("patch_embed", "blocks"))
    train(tuned, tiny, tmp_path / "tuned", init_from=tmp_path / "pre", workers=IN_PROCESS)
    model = load(tmp_path / "tuned" / "weights.safetensors")
    assert card_of(model).classes == ("down", "up")
    ours, theirs = model.state_dict(), pretrained.state_dict()
    names = [name for name in ours if name.startswith(("blocks.", "patch_embed."))]
    assert len(names) > 10
    for name in names:
        torch.testing.assert_close(ours[name], theirs[f"encoder.{name}"], rtol=0, atol=0)
