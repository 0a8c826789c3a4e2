import json
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.errors import UserError
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.inference.predict import predict
from mmaction_lite.models import tsm_r10
from mmaction_lite.models.network import recompute_layers
from mmaction_lite.models.recognizer import fold_time
from mmaction_lite.optim import AdamW, measure_statistics
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.report.page import write_report
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.training.loop import train
from mmaction_lite.training.progress import TrainingLog
from mmaction_lite.weights.card import card_of, load
from mmaction_lite.weights.checkpoint import load_state

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = {"iteration_seconds", "data_seconds", "limited_by", "memory_mib"}
    return [{name: value for name, value in row.items() if name not in timed} for row in lines]


def die_after(monkeypatch, steps):
    """Make a training end like a killed process: after so many steps, without saving anything more."""
    finish_step = TrainingLog.step

    def step(self, number, *arguments):
        finish_step(self, number, *arguments)
        if number == steps:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLog, "step", step)


def test_run_folder_holds_everything(tiny, recipe, tmp_path):
    done = train(recipe, tiny, tmp_path / "run")
    assert (done.step, done.best_step) in {(6, 3), (6, 6)}
    names = {path.name for path in (tmp_path / "run").iterdir()}
    files = {"recipe.txt", "metrics.jsonl", "last.pt", "best.pt", "weights.safetensors", "val.npz"}
    assert files <= names
    assert any(name.startswith("events") for name in names)
    assert not any(name.startswith(".") for name in names)
    assert [row["step"] for row in rows(tmp_path / "run") if "split" in row] == [3, 6]
    assert [row["epoch"] for row in rows(tmp_path / "run") if "split" not in row][-1] == 2
    assert str(recipe) in (tmp_path / "run" / "recipe.txt").read_text()
    card = card_of(load(tmp_path / "run"))
    assert card.classes == ("down", "up")
    assert card.test == recipe.test_protocol


def test_overfits_four_clips(tiny, recipe, tmp_path):
    for split in ("train", "val"):
        for name in ("up/0", "up/2", "down/1", "down/3"):
            copy = tmp_path / "data" / split / f"{name}.mp4"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((tiny / "train" / f"{name}.mp4").read_bytes())
    recipe = replace(
        apply_overrides(recipe, ["model.dropout=0", "model.width=8"]),
        epochs=40,
        train=replace(recipe.train, flip=0.0),
    )
    train(recipe, tmp_path / "data", tmp_path / "run")
    assert rows(tmp_path / "run")[-2]["loss"] < 0.25
    assert rows(tmp_path / "run")[-1]["top1"] == 1.0


def test_validation_in_training_is_the_test_of_the_val_protocol(tiny, recipe, tmp_path):
    train(recipe, tiny, tmp_path / "run")
    model = load(tmp_path / "run" / "best.pt")
    card = card_of(model)
    result = evaluate(model, read_split(tiny, "val", card.classes), card.val)
    with np.load(tmp_path / "run" / "val.npz") as saved:
        assert (saved["scores"] == result.scores).all()


class Exploding(nn.Module):
    """Gives NaN for one step in the middle."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.fc = nn.Linear(3, num_classes)
        self.steps = 0

    def forward(self, x):
        self.steps += 1
        return self.fc(x.mean((2, 3, 4))) * (float("nan") if self.steps == 2 else 1.0)


def test_a_loss_that_is_not_finite_names_step_and_videos(tiny, recipe, tmp_path):
    with pytest.raises(UserError, match=r"loss of step 2 is nan: .*\.mp4, .*\.mp4, .*\.mp4, .*\.mp4$"):
        train(replace(recipe, model=Build(Exploding)), tiny, tmp_path / "run")
    assert load_state(tmp_path / "run" / "last.pt")["progress"]["step"] == 0


def test_a_run_folder_is_never_overwritten_or_mixed(tiny, recipe, tmp_path):
    train(recipe, tiny, tmp_path / "run")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.raises(UserError, match=r"run: is already used; pass --resume"):
        train(recipe, tiny, tmp_path / "run")
    with pytest.raises(UserError, match=r"cannot resume: .*lr=0.004.*lr=0.1"):
        train(apply_overrides(recipe, ["optimizer.lr=0.1"]), tiny, tmp_path / "run", resume=True)
    with pytest.raises(UserError, match=r"seed 0.*seed 1"):
        train(recipe, tiny, tmp_path / "run", resume=True, seed=1)
    with pytest.raises(UserError, match=r"none/last\.pt: no such file"):
        train(recipe, tiny, tmp_path / "none", resume=True)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    assert train(recipe, tiny, tmp_path / "run", resume=True).step == 6  # already finished: nothing to do
    for split in ("train", "val"):
        (tmp_path / "other" / split / "up").mkdir(parents=True)
        (tmp_path / "other" / split / "down").symlink_to(tiny / split / "down")
        for clip in sorted((tiny / split / "up").iterdir())[1:]:
            (tmp_path / "other" / split / "up" / clip.name).symlink_to(clip)
    with pytest.raises(UserError, match=r"cannot resume: .*trained on 12 clips .*trained on 11 clips"):
        train(recipe, tmp_path / "other", tmp_path / "run", resume=True)


def test_too_few_clips_for_a_batch_and_too_many_broken_ones(tiny, recipe, tmp_path):
    with pytest.raises(UserError, match=r"12 clips are fewer than one batch of 64; .*batch_size=12"):
        train(replace(recipe, batch_size=64), tiny, tmp_path / "run")
    for path in tiny.rglob("*.mp4"):
        copy = tmp_path / "data" / path.relative_to(tiny)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"" if path.name == "0.mp4" else path.read_bytes())
    with pytest.raises(UserError, match=r"1 of 12 videos cannot be read, more than 5%; .*quarantine\.jsonl"):
        train(recipe, tmp_path / "data", tmp_path / "run")
    (line,) = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["path"].endswith("0.mp4")


class Diverging(Exploding):
    """A finite loss whose gradient is infinite."""

    def forward(self, x):
        return self.fc(x.mean((2, 3, 4))) + (self.fc.weight * 0).clamp(min=0).sqrt().sum()


def test_weights_that_are_not_finite_are_never_saved(tiny, recipe, tmp_path):
    with pytest.raises(UserError, match=r"step 3: fc\.weight holds values that are not finite|loss of step"):
        train(replace(recipe, model=Build(Diverging), max_grad_norm=None), tiny, tmp_path / "run")
    assert load_state(tmp_path / "run" / "last.pt")["progress"]["step"] == 0


def test_iterations_are_timed_with_the_wait_for_the_device(tiny, recipe, tmp_path, monkeypatch):
    settle = TrainingLog.settle

    def slow(self):
        time.sleep(0.05)
        settle(self)

    monkeypatch.setattr(TrainingLog, "settle", slow)
    train(recipe, tiny, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["iteration_seconds"] > 0.05 for row in lines if "split" not in row)


def test_one_list_is_not_enough_to_train(tiny, recipe, tmp_path):
    (tmp_path / "all.txt").write_text("a.mp4 0\n")
    with pytest.raises(UserError, match=r"all\.txt: is one list; training needs a folder"):
        train(recipe, tmp_path / "all.txt", tmp_path / "run")


def test_mixing_is_part_of_a_recipe_and_of_its_resume(tiny, recipe, tmp_path, one_thread):
    mixed = replace(recipe, mixing=Mixing(mixup_alpha=0.8, cutmix_alpha=1.0))
    train(recipe, tiny, tmp_path / "plain")
    train(mixed, tiny, tmp_path / "mixed")
    train(mixed, tiny, tmp_path / "again", workers=WorkerSettings(num_workers=2))
    plain, first, again = (
        load_state(tmp_path / name / "last.pt")["model"] for name in ("plain", "mixed", "again")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], plain[name]) for name in first)
    assert "Mixing(mixup_alpha=0.8" in (tmp_path / "mixed" / "recipe.txt").read_text()


def weights_of(run):
    return load_state(run / "last.pt")["model"]


def test_parts_of_a_batch_add_up_to_it(tiny, recipe, tmp_path):
    """Exactly so where nothing sees the batch as a whole: no dropout, running statistics that stay."""
    recipe = replace(recipe, model=Build(Plain), epochs=1)
    train(recipe, tiny, tmp_path / "whole")
    train(replace(recipe, clips_per_device=1), tiny, tmp_path / "parts")
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.allclose(whole[name], parts[name], atol=1e-5) for name in whole)
    mixed = replace(recipe, mixing=Mixing(mixup_alpha=0.8, cutmix_alpha=0.0))
    train(mixed, tiny, tmp_path / "mixed")
    train(
        replace(mixed, clips_per_device=3), tiny, tmp_path / "mixed_parts"
    )  # 2 at a time: pairs stay together
    one, other = weights_of(tmp_path / "mixed"), weights_of(tmp_path / "mixed_parts")
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    assert any(not torch.allclose(one[name], whole[name], atol=1e-4) for name in one)


class Plain(nn.Module):
    """Without batch statistics."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv = nn.Conv3d(3, 8, 3, 2)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3, 4)))


def test_frozen_modules_keep_weights_and_statistics(tiny, recipe, tmp_path):
    frozen = replace(recipe, freeze=("backbone.conv1", "backbone.bn1"))
    train(frozen, tiny, tmp_path / "run")
    torch.manual_seed(0)
    start, end = frozen.model(num_classes=2).state_dict(), weights_of(tmp_path / "run")
    for name in start:
        still = any(name.startswith(f"{frozen_name}.") for frozen_name in frozen.freeze)
        assert torch.equal(start[name], end[name]) == still, name
    with pytest.raises(UserError, match=r"freeze: the network has nothing named 'backbone\.con'; nearest: "):
        train(replace(recipe, freeze=("backbone.con",)), tiny, tmp_path / "other")
    with pytest.raises(UserError, match="leave nothing to train"):
        train(replace(recipe, freeze=("backbone", "fc")), tiny, tmp_path / "other")


def test_averaged_weights_are_validated_kept_and_resumed(tiny, recipe, tmp_path, monkeypatch):
    recipe = replace(recipe, ema_decay=0.7)
    train(recipe, tiny, tmp_path / "whole")
    with monkeypatch.context() as patch:
        die_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tiny, tmp_path / "run")
    train(recipe, tiny, tmp_path / "run", resume=True)
    whole, run = (load_state(tmp_path / name / "last.pt") for name in ("whole", "run"))
    assert all(torch.equal(whole["average"][name], run["average"][name]) for name in whole["average"])
    last = load_state(tmp_path / "whole" / "best.pt")["model"]
    assert any(not torch.equal(last[name], whole["model"][name]) for name in last)
    model = load(tmp_path / "whole" / "best.pt")
    card = card_of(model)
    result = evaluate(model, read_split(tiny, "val", card.classes), card.val)
    with np.load(tmp_path / "whole" / "val.npz") as saved:
        assert (saved["scores"] == result.scores).all()


def test_precision(tiny, recipe, tmp_path):
    train(apply_overrides(recipe, ["precision=bfloat16", "epochs=1"]), tiny, tmp_path / "run")
    state = load_state(tmp_path / "run" / "last.pt")["model"]
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in state.values())
    with pytest.raises(UserError, match="precision float16 needs a GPU"):
        train(apply_overrides(recipe, ["precision=float16"]), tiny, tmp_path / "other", device="cpu")
    with pytest.raises(
        UserError, match="precision is 'half'; expected one of 'float32', 'bfloat16', 'float16'"
    ):
        apply_overrides(recipe, ["precision=half"])


def several_labels(tiny, folder):
    """Lists of the clips with the classes "bright" or "dark", and "clip" for all but one."""
    for split in ("train", "val"):
        rows = ["path,labels"]
        for i, clip in enumerate(sorted((tiny / split).rglob("*.mp4"))):
            name = {"up": "bright", "down": "dark"}[clip.parent.name]
            rows.append(f"{clip},{name}" + ("|clip" if i else ""))
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_several_labels_from_list_to_report(tiny, recipe, tmp_path):
    data = several_labels(tiny, tmp_path)
    with pytest.raises(UserError, match=r"train\.csv: clips have any number of classes, .*task=multi_label"):
        train(recipe, data, tmp_path / "run")
    recipe = replace(recipe, task=MultiLabel(), epochs=12, label_smoothing=0.0)
    mixed = replace(recipe, mixing=Mixing(), epochs=1)
    train(mixed, data, tmp_path / "mixed")
    done = train(recipe, data, tmp_path / "run")
    assert done.metric == "mean_average_precision"
    assert done.best_score > 0.95
    last = rows(tmp_path / "run")[-1]
    assert last["mean_average_precision"] > 0.9
    assert last["loss"] < 0.7
    model = load(tmp_path / "run")
    assert card_of(model).task == MultiLabel()
    assert card_of(model).classes == ("bright", "clip", "dark")
    clip = next((tiny / "val" / "up").iterdir())
    prediction = predict(model, clip)
    assert prediction.scores.sum() > 1.2  # each class by itself
    assert set(prediction.labels[:2]) == {"bright", "clip"}
    page = write_report([tmp_path / "run"], None).read_text()
    assert "mean average precision" in page
    assert "Average precision" in page
    assert "Confusion matrix</h3>" not in page


def test_class_weights_change_what_is_learned(tiny, recipe, tmp_path):
    plain = train(replace(recipe, class_weights="balanced", epochs=1), tiny, tmp_path / "balanced")
    train(replace(recipe, epochs=1), tiny, tmp_path / "plain")
    train(replace(recipe, class_weights=(0.0, 1.0), epochs=1), tiny, tmp_path / "one")
    assert plain.step == 3
    weights = [load_state(tmp_path / name / "last.pt")["model"] for name in ("plain", "balanced", "one")]
    assert all(
        torch.equal(weights[0][name], weights[1][name]) for name in weights[0]
    )  # as many of each class
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    with pytest.raises(UserError, match="3 class_weights for 2 classes"):
        train(replace(recipe, class_weights=(1.0, 1.0, 1.0)), tiny, tmp_path / "wrong")


def trained(recipe, tiny, out, **options):
    """The weights after a training without validation in between."""
    train(recipe, tiny, out, **options)
    return load_state(out / "last.pt")["model"]


def test_recomputed_blocks_change_no_number(tiny, recipe, tmp_path):
    recipe = replace(recipe, epochs=1)
    plain = trained(recipe, tiny, tmp_path / "plain")
    again = trained(replace(recipe, recompute=True), tiny, tmp_path / "again")
    assert all(torch.equal(plain[name], again[name]) for name in plain)  # running statistics included
    with pytest.raises(UserError, match="recompute is True and compile is 'default'; expected only one"):
        replace(recipe, recompute=True, compile="default")


def test_recomputed_blocks_are_not_stored():
    """Bytes that the backward pass keeps; inner activations of blocks are not among them."""

    def kept(recompute):
        model, sizes = tsm_r10(num_classes=2, width=16).train(), {}
        if recompute:
            recompute_layers(model)

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(2, 3, 4, 64, 64))
        return sum(sizes.values())

    assert kept(recompute=True) < 0.6 * kept(recompute=False)
    with pytest.raises(UserError, match="recompute: Linear is a single layer"):
        recompute_layers(nn.Linear(1, 1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_training_gives_the_same_numbers(tiny, recipe, tmp_path):
    recipe = replace(recipe, epochs=1, model=Build(tsm_r10, width=8, dropout=0.0))
    plain = trained(recipe, tiny, tmp_path / "plain")
    compiled = trained(replace(recipe, compile="default"), tiny, tmp_path / "compiled")
    assert plain.keys() == compiled.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(tensor, compiled[name], rtol=1e-3, atol=1e-4)


def test_batch_normalization_modes(tiny, recipe, tmp_path, capsys):
    start = tmp_path / "start"
    train(replace(recipe, epochs=1), tiny, start)
    before = load_state(start / "best.pt")["model"]
    norms = [name.rpartition(".")[0] for name in before if name.endswith("running_mean")]

    def changed(mode, part):
        after = trained(
            replace(recipe, epochs=1, batch_norm=mode), tiny, tmp_path / mode, init_from=start / "best.pt"
        )
        return [not torch.equal(before[f"{norm}.{part}"], after[f"{norm}.{part}"]) for norm in norms]

    assert all(changed("train", "running_mean"))
    assert not any(changed("frozen", "running_mean"))
    weights = [load_state(tmp_path / "frozen" / "last.pt")["model"][f"{norm}.weight"] for norm in norms]
    assert all(not torch.equal(before[f"{n}.weight"], w) for n, w in zip(norms, weights, strict=True))
    assert changed("partial", "running_mean") == [True] + [False] * (len(norms) - 1)
    weights = [load_state(tmp_path / "partial" / "last.pt")["model"][f"{norm}.weight"] for norm in norms]
    assert [torch.equal(before[f"{n}.weight"], w) for n, w in zip(norms, weights, strict=True)] == [False] + [
        True
    ] * (len(norms) - 1)
    assert all(changed("sync", "running_mean"))
    assert "batch_norm sync: on cpu it is plain batch normalization" in capsys.readouterr().err


def test_precise_statistics_are_the_mean_over_batches(tiny, recipe, tmp_path):
    plain = trained(replace(recipe, epochs=1), tiny, tmp_path / "plain")
    precise = trained(replace(recipe, epochs=1, precise_bn_clips=8), tiny, tmp_path / "precise")
    for name, tensor in plain.items():
        is_statistic = "running" in name or "num_batches" in name
        assert torch.equal(tensor, precise[name]) != is_statistic, name
    model, inputs = tsm_r10(num_classes=2, width=8).train(), [torch.randn(4, 3, 4, 20, 28) for _ in range(3)]
    with torch.no_grad():
        seen = [model.get_submodule("backbone.conv1")(fold_time(x), 4) for x in inputs]
    measure_statistics(model, inputs)
    expected = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(model.state_dict()["backbone.bn1.running_mean"], expected)
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_a_training_ends_when_nothing_improves(tiny, recipe, tmp_path, capsys):
    """With an lr of 0 and running statistics that stay, no validation is better than the first."""
    stuck = replace(recipe, optimizer=AdamW(lr=0.0), epochs=9, patience=2, batch_norm="frozen")
    done = train(stuck, tiny, tmp_path / "run")
    assert (done.step, done.best_step, done.bad_validations) == (9, 3, 2)
    assert "ended at step 9: 2 validations in a row without improvement" in capsys.readouterr().err
    assert (tmp_path / "run" / "weights.safetensors").is_file()
    assert train(stuck, tiny, tmp_path / "run", resume=True).step == 9


class Greedy(nn.Module):
    """Runs out of memory with more than two clips at once."""

    def __init__(self, num_classes: int = 2):
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, x):
        if self.training and len(x) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return self.fc(x.mean((2, 3, 4)))


def test_parts_shrink_until_they_fit(tiny, recipe, tmp_path, capsys):
    greedy = replace(recipe, model=Build(Greedy), epochs=1)
    halved = trained(greedy, tiny, tmp_path / "halved")
    assert "continuing with 2 at a time" in capsys.readouterr().err
    asked = trained(replace(greedy, clips_per_device=2), tiny, tmp_path / "asked")
    assert all(torch.equal(halved[name], asked[name]) for name in asked)
    views = replace(recipe.train, repeats=3)
    with pytest.raises(UserError, match="does not hold 3 clips at once; try --set clips_per_device"):
        train(replace(greedy, train=views), tiny, tmp_path / "none")


def test_weights_and_biases_receives_the_same_values(tiny, recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'mmaction-lite\[wandb\]'"):
        train(recipe, tiny, tmp_path / "none", wandb="project")
    assert not (tmp_path / "none").exists()
    sent, started = [], []

    class Project:
        def log(self, values):
            sent.append(values)

        def finish(self):
            sent.append("finished")

    def init(**options):
        started.append(options)
        return Project()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    train(recipe, tiny, tmp_path / "run", wandb="project")
    assert (started[0]["project"], started[0]["name"]) == ("project", "run")
    assert sent[-1] == "finished"
    last = rows(tmp_path / "run")[-1]
    assert {"val/top1": last["top1"], "step": 6} in sent
    assert sum("train/loss" in values for values in sent[:-1]) == sum(
        "split" not in row for row in rows(tmp_path / "run")
    )
