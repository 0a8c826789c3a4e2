"""What is checked and printed before a training begins."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.training.loop import train
from mmaction_lite.training.preflight import (
    check_files,
    check_fit,
    check_forward,
    check_windows,
    print_summary,
)
from mmaction_lite.weights.card import ModelCard

CPU = DistributedContext(0, 1, 1, torch.device("cpu"))


def samples_with(*counts: int, source: str = "train.txt") -> Samples:
    """Return a table with the given number of clips of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    paths = PackedStrings([f"{source}-{number}.mp4" for number in range(len(labels))])
    return Samples(paths, labels, tuple("abcdefgh"[: len(counts)]), Path(), source)


def printed(recipe, samples: Samples, val: str = "val.txt", model: nn.Module | None = None) -> str:
    """The lines that announce a training of `recipe` on `samples`."""
    console = Console(file=io.StringIO())
    print_summary(
        recipe,
        ModelCard.of(recipe, samples.classes),
        samples,
        samples_with(2, 2, source=val),
        BatchPlan(len(samples), recipe.batch_size),
        model=model or tsm_r10(num_classes=2, width=8),
        context=CPU,
        num_workers=1,
        console=console,
    )
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("counts", "is_noted"), [((10, 1), False), ((11, 1), True), ((110, 30, 10), True), ((11, 11), False)]
)
def test_classes_are_uneven_when_the_largest_has_over_ten_times_the_clips_of_the_smallest(
    recipe, counts, is_noted
):
    assert ("note: classes are uneven" in printed(recipe, samples_with(*counts))) == is_noted


def test_no_note_where_uneven_classes_are_balanced_already(recipe):
    samples = samples_with(50, 1)
    assert "--set class_balance=0.5" in printed(recipe, samples)
    assert "uneven" not in printed(replace(recipe, class_balance=0.5), samples)
    assert "uneven" not in printed(replace(recipe, class_weights="balanced"), samples)


def test_what_is_trained_on_what(recipe):
    text = printed(recipe, samples_with(4, 2))
    assert "on cpu, 1 decoding workers each" in text
    assert "batch 4, lr 0.004 (the recipe's own), 2 epochs" in text
    assert "train: train.txt: 6 clips, 2 classes with 2 to 4 clips (median 3)" in text
    assert "val: val.txt: 4 clips" in text
    assert "note:" not in text


def test_notes_on_flipped_classes_and_on_clips_in_both_splits(recipe):
    samples = replace(samples_with(4, 4), classes=("turn Left", "turn Right"))
    recipe = replace(recipe, train=replace(recipe.train, flip=0.5), modified=())
    text = printed(recipe, samples)
    assert "note: mirrored clips of 2 classes get the label of another class: turn Left ↔ turn Right" in text
    assert "training split" not in text
    assert "note: 4 of 4 val clips are also in the training split" in printed(
        recipe, samples, val="train.txt"
    )


def test_notes(recipe):
    assert "no training clips for 2 classes: b, c" in printed(recipe, samples_with(3, 0, 0))
    assert "chosen on the test split" in printed(recipe, samples_with(3, 3), val="test.txt")
    changed = replace(recipe, modified=("batch_size=4",))
    assert "which you changed" in printed(changed, samples_with(3, 3))
    assert "which you changed" not in printed(
        replace(changed, modified=("batch_size=4", "optimizer.lr=0.1")), samples_with(3, 3)
    )
    started = replace(recipe, starts_from="ImageNet ResNet-50")
    assert "note: the recipe starts from ImageNet ResNet-50 weights; pass them as --init-from" in printed(
        started, samples_with(3, 3)
    )


def check(recipe, samples: Samples, context: DistributedContext = CPU, shard: bool = False) -> None:
    check_fit(recipe, samples, BatchPlan(len(samples), recipe.batch_size), context, shard)


def test_recipe_data_and_device_that_do_not_fit(recipe):
    samples = samples_with(4, 4)
    check(recipe, samples)
    with pytest.raises(UserError, match="precision float16 needs a GPU"):
        check(replace(recipe, precision="float16"), samples)
    with pytest.raises(UserError, match=r"8 clips are fewer than one batch of 9; .*batch_size=8"):
        check(replace(recipe, batch_size=9), samples)
    with pytest.raises(UserError, match=r"3 class_weights for 2 classes of .*; expected one for each class"):
        check(replace(recipe, class_weights=(1.0, 1.0, 1.0)), samples)
    with pytest.raises(UserError, match="--shard cannot be combined with ema_decay or compile"):
        check(replace(recipe, ema_decay=0.9), samples, shard=True)


def test_one_class_only_is_an_error(recipe):
    for counts in ((8,), (0, 8)):
        with pytest.raises(UserError, match=r"train\.txt: all clips have the class '[ab]'; training needs"):
            check_fit(recipe, samples_with(*counts), BatchPlan(8, 4), CPU, shard=False)


def test_notes_on_annotations_are_printed(recipe):
    samples = replace(samples_with(4, 4), notes=("train.csv: 1 columns are ignored: fps",))
    assert "note: train.csv: 1 columns are ignored: fps" in printed(recipe, samples)


def test_a_missing_opposite_class_is_found_before_the_run_folder_is_used(recipe):
    samples = replace(samples_with(4, 4), classes=("swipe_left", "stay"))
    check(replace(recipe, train=replace(recipe.train, flip=0.0, reverse=0.0)), samples)
    for field in ("flip", "reverse"):
        with pytest.raises(UserError, match="would be 'swipe_right', which is not a class"):
            check(replace(recipe, train=replace(recipe.train, **{field: 0.5})), samples)


def test_windows_are_checked_before_the_training(recipe):
    model = tsm_r10(num_classes=2, width=8)
    views = replace(recipe.test, crop=CenterCrop(size=(64, 64)))
    check_windows(replace(recipe, window=2, val=views, test=views), model)
    with pytest.raises(UserError, match="window is 3; expected at most the feature map, 2x2"):
        check_windows(replace(recipe, window=3, val=views, test=views), model)
    with pytest.raises(UserError, match="forward method of Linear has no argument `window`"):
        check_windows(replace(recipe, window=2), nn.Linear(1, 1))
    check_windows(recipe, nn.Linear(1, 1))


def test_a_training_with_a_window_that_does_not_fit_takes_no_step(tiny, recipe, tmp_path):
    with pytest.raises(UserError, match="window is 9; expected at most the feature map"):
        train(replace(recipe, window=9), tiny, tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


class Own(nn.Module):
    """A network of a user with a mistake of the given kind."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.kind = kind

    def forward(self, x: torch.Tensor) -> object:
        if self.kind == "item":  # has no value on the meta device
            assert x.sum().item() == 0
        pooled = x.mean((2, 3) if self.kind == "axes" else (2, 3, 4))
        return {"tuple": (pooled,), "features": pooled}.get(self.kind, self.head(pooled))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "axes",
            r"Own: the forward pass fails for clips of shape \(1, 3, 4, 20, 28\), .*RuntimeError: .*\. Cor",
        ),
        ("tuple", r"Own: the forward pass returns a tuple .*; expected logits of shape \(1, 2\)"),
        ("features", r"Own: the forward pass returns \(1, 3\) for clips"),
    ],
)
def test_a_model_that_does_not_compute_logits_is_found_before_the_run_folder_is_used(kind, message, recipe):
    with pytest.raises(UserError, match=message):
        check_forward(recipe, Own(kind), 2)


def test_the_check_of_the_forward_pass_changes_nothing(recipe):
    models = Own(), Own("item"), tsm_r10(num_classes=2, width=8)
    state = torch.get_rng_state()
    for model in models:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        check_forward(recipe, model, 2)
        assert model.training
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


def failing(num_classes: int) -> nn.Module:
    return Own("axes")


def test_a_training_of_a_model_that_fails_takes_no_folder(tiny, recipe, tmp_path):
    with pytest.raises(UserError, match="Own: the forward pass fails"):
        train(replace(recipe, model=Build(failing)), tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "train.clips.num_segments=200000",
            r"the training views, 1x1x200000 frames of 20x28 pixels, take 0\.336 GB of memory per video",
        ),
        ("val.clips.num_segments=2000000", "the val protocol, .* of pixels of a video; expected at most"),
        ("test.crop.size=(90000,90000)", "the test protocol, .* of pixels of a video; expected at most"),
    ],
)
def test_views_that_take_gigabytes_are_found_before_the_run_folder_is_used(
    tiny, recipe, tmp_path, setting, message
):
    with pytest.raises(UserError, match=message):
        train(apply_overrides(recipe, [setting]), tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_layer_decay_without_layers_is_noted(recipe):
    decayed = replace(recipe, optimizer=replace(recipe.optimizer, layer_decay=0.5))
    foreign = nn.Sequential(nn.Linear(2, 2))
    assert "note: layer_decay has no effect: Sequential" in printed(
        decayed, samples_with(2, 2), model=foreign
    )
    assert "layer_decay" not in printed(recipe, samples_with(2, 2), model=foreign)
    assert "layer_decay has no effect" not in printed(decayed, samples_with(2, 2))


def test_missing_files_are_counted_before_the_run_folder_is_created(tiny, recipe, tmp_path):
    clip = tiny / "train" / "up" / "0.mp4"
    for split in ("train", "val"):
        lines = [f"{clip if number % 2 else 'gone.mp4'} {number % 3}\n" for number in range(3000)]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    message = r"train\.txt: [45]\d\d of 1,000 checked files are missing, for example .*gone"
    with pytest.raises(UserError, match=message):
        train(recipe, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_few_missing_files_and_addresses_are_notes(tiny, tmp_path):
    clip = tiny / "train" / "up" / "0.mp4"
    paths = [str(clip)] * 98 + ["gone.mp4", "https://example.org/a.mp4"]
    (tmp_path / "train.txt").write_text(
        "".join(f"{path} {number % 2}\n" for number, path in enumerate(paths))
    )
    lines = []
    check_files(read_split(tmp_path, "train"), lines.append)
    assert len(lines) == 2
    assert "lists addresses, which are opened, such as https://example.org/a.mp4" in lines[0]
    assert "1 of 99 checked files are missing" in lines[1]


def test_patterns_of_frames_are_files_that_exist_and_long_names_are_missing(tmp_path):
    paths = [*(f"{clip}/left_*.jpg" for clip in "abcdefghi"), *("n" * 300 + ".mp4" for _ in range(1))]
    for path in paths[:9]:
        (tmp_path / path).parent.mkdir()
        for side in ("left", "right"):
            (tmp_path / path).with_name(f"{side}_1.jpg").write_bytes(b"")
    text = "".join(f"{path} {number % 2}\n" for number, path in enumerate(paths))
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(UserError, match=r"1 of 10 checked files are missing, for example .*nnn"):
        check_files(read_split(tmp_path, "train"), print)
