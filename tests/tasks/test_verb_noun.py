"""Verb and noun: the task by itself, and from a generated table to training, test, report and prediction."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mmaction_lite.cli import main
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.batch_plan import Multigrid, Phase
from mmaction_lite.data.loading.loader import VideoDataset
from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.data.views.views import TrainViews
from mmaction_lite.errors import UserError
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.inference.predict import predict
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.report.page import write_report
from mmaction_lite.tasks.verb_noun import VerbNoun
from mmaction_lite.training.loop import train
from mmaction_lite.weights.card import card_of, load
from tests.conftest import brightening, small_recipe, write_video

CLASSES = ("verb: close", "verb: open", "noun: cup", "noun: door", "noun: lid")
TASK = VerbNoun().for_classes(CLASSES)
COLORS = {"cup": 0, "door": 1, "lid": 2}  # of the channel that is bright
VERBS = ("open", "close")  # brighter and darker


def test_the_classes_are_verbs_then_nouns():
    assert VerbNoun().for_classes(CLASSES) == VerbNoun(num_verbs=2)
    for wrong in (CLASSES[::-1], CLASSES[:2], CLASSES[2:], ("open", "door")):
        with pytest.raises(UserError, match=r"task verb_noun: the . classes are .*columns verb and noun"):
            VerbNoun().for_classes(wrong)
    with pytest.raises(UserError, match=r"val\.csv: labels are in the column label, .*verb and noun"):
        TASK.check_labels(("label",), "val.csv")
    with pytest.raises(UserError, match="the number of verbs is not set"):
        VerbNoun().probabilities(torch.zeros(1, 5))


def test_targets_count_nouns_from_0():
    assert TASK.target(np.array([1, 4]), 5).tolist() == [1, 2]
    assert TASK.targets(np.array([1, 4, 0, 2]), np.array([2, 2]), 5).tolist() == [[1, 2], [0, 0]]
    assert TASK.dense(torch.tensor([[1, 2]]), 5).tolist() == [[0, 1, 0, 0, 1]]


def test_the_loss_is_the_mean_of_two_cross_entropies():
    logits, targets = torch.randn(4, 5), torch.tensor([[0, 0], [1, 2], [1, 1], [0, 2]])
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    own = [
        cross_entropy(logits[:, part], target, weights[part], label_smoothing=0.1, reduction="none")
        for part, target in ((slice(2), targets[:, 0]), (slice(2, 5), targets[:, 1]))
    ]
    found = TASK.loss(logits, targets, label_smoothing=0.1, class_weights=weights)
    torch.testing.assert_close(found, (own[0] + own[1]) / 2)


def test_an_action_is_correct_if_verb_and_noun_are():
    logits = torch.tensor([[2.0, 0, 2, 0, 0]] * 4)
    targets = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 2]])
    assert TASK.correct(logits, targets).tolist() == [1, 0, 0, 0]
    assert TASK.correct(logits, TASK.dense(targets, 5)).tolist() == [1, 0, 0, 0]


def test_weights_balance_verbs_and_nouns_separately():
    weights = TASK.balanced_weights(np.array([30, 10, 20, 10, 10]))
    np.testing.assert_allclose(weights, [40 / 60, 2, 40 / 60, 40 / 30, 40 / 30], rtol=1e-6)


def test_metrics_by_hand():
    scores = np.array(
        [
            [0.6, 0.4, 0.5, 0.3, 0.2],  # both correct
            [0.6, 0.4, 0.5, 0.3, 0.2],  # verb wrong; true action 0.4 * 0.5 = 0.20, behind 0.30
            [0.9, 0.1, 0.1, 0.2, 0.7],  # both wrong; true action 0.1 * 0.1, the last of six
            [np.nan] * 5,
        ]
    )
    targets = np.array([[0, 0], [1, 0], [1, 0], [0, 0]])
    assert TASK.metrics(scores, targets) == {
        "action_top1": 1 / 4,
        "action_top5": 2 / 4,
        "verb_top1": 1 / 4,
        "verb_top5": 3 / 4,
        "noun_top1": 2 / 4,
        "noun_top5": 3 / 4,
    }
    assert TASK.shown_metrics(5) == ("action_top1", "action_top5", "verb_top1", "noun_top1")
    assert TASK.log_loss(scores[:1], targets[:1]) == pytest.approx(-np.log([0.6, 0.5]).mean())
    worst, second = TASK.mistakes(scores, targets, CLASSES, 5)
    assert (worst.index, worst.true, worst.predicted) == (2, "open cup", "close lid")
    assert worst.true_score == pytest.approx(0.01)
    assert (second.index, second.predicted_score) == (1, pytest.approx(0.3))
    verbs, nouns = TASK.class_results(scores, targets)
    assert verbs.confusion is not None
    assert nouns.confusion is not None
    assert (verbs.confusion.tolist(), nouns.confusion.tolist()) == (
        [[1, 0], [2, 0]],
        [[2, 0, 1], [0] * 3, [0] * 3],
    )
    assert (verbs.title, nouns.title, nouns.first) == ("verb", "noun", 2)


def test_a_prediction_lists_actions():
    names, scores = TASK.ranked(np.array([0.6, 0.4, 0.5, 0.3, 0.2], np.float32), CLASSES)
    assert names[:3] == ("close cup", "open cup", "close door")
    np.testing.assert_allclose(scores[:3], [0.3, 0.2, 0.18], rtol=1e-6)
    assert scores.sum() == pytest.approx(1)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """24 training and 12 validation clips that become brighter (open) or darker (close) in three colors."""
    root = tmp_path_factory.mktemp("kitchen")
    for split, numbers in (("train", range(24)), ("val", range(24, 36))):
        rows = ["path,verb,noun"]
        for number in numbers:
            verb, noun = VERBS[number % 2], list(COLORS)[number // 2 % 3]
            frames = brightening(number)
            for channel in {0, 1, 2} - {COLORS[noun]}:
                frames[..., channel] //= 4
            write_video(root / f"{number}.mp4", frames)
            rows.append(f"{number}.mp4,{verb},{noun}")
        (root / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def run(kitchen, tmp_path_factory):
    """A run folder of ten epochs on the clips."""
    chosen = replace(small_recipe(), epochs=10)
    chosen = apply_overrides(chosen, ["task=verb_noun", "class_balance=0.5", "class_weights=balanced"])
    out = tmp_path_factory.mktemp("runs") / "kitchen"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    done = train(chosen, kitchen, out)
    torch.set_num_threads(threads)
    assert done.metric == "action_top1"
    return out


def cli(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["mmaction-lite", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    assert caught.value.code in (0, None), captured.err
    return captured.out


def test_training_learns_verbs_and_nouns(run):
    card = card_of(load(run))
    assert card.classes == ("verb: close", "verb: open", "noun: cup", "noun: door", "noun: lid")
    assert card.task == VerbNoun(num_verbs=2)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["split"] == "val"
    best = max(row["action_top1"] for row in rows if row.get("split") == "val")
    assert best > 0.5  # chance: 1/6
    assert {"verb_top1", "noun_top1", "action_top5", "loss"} <= rows[-1].keys()


def test_metrics_of_the_score_file_equal_a_computation_by_hand(run, kitchen, monkeypatch, capsys, tmp_path):
    words = ("--data", kitchen, "--dump", tmp_path / "test.npz", "--workers", 0)
    text = cli(monkeypatch, capsys, "test", run, *words)
    found = json.loads(cli(monkeypatch, capsys, "test", run, *words, "--json"))
    assert text.startswith("action top-1 ")
    assert "verb top-1" in text
    with np.load(tmp_path / "test.npz", allow_pickle=False) as arrays:
        scores, labels, names = arrays["scores"], arrays["labels"], arrays["class_names"].tolist()
        paths = arrays["paths"].tolist()
    np.testing.assert_allclose(scores[:, :2].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(scores[:, 2:].sum(1), 1, rtol=1e-5)
    verbs, nouns, in_top5 = [], [], []
    for path, row, (verb, noun) in zip(paths, scores, labels, strict=True):
        number = int(path.rsplit("/", 1)[1].removesuffix(".mp4"))
        assert names[verb] == f"verb: {VERBS[number % 2]}"
        assert names[2 + noun] == f"noun: {list(COLORS)[number // 2 % 3]}"
        verbs.append(row[:2].argmax() == verb)
        nouns.append(row[2:].argmax() == noun)
        products = sorted(((row[v] * row[2 + n], v, n) for v in range(2) for n in range(3)), reverse=True)
        in_top5.append((verb, noun) in [pair[1:] for pair in products[:5]])
    assert found["verb_top1"] == pytest.approx(np.mean(verbs))
    assert found["noun_top1"] == pytest.approx(np.mean(nouns))
    assert found["action_top1"] == pytest.approx(np.mean(np.logical_and(verbs, nouns)))
    assert found["action_top5"] == pytest.approx(np.mean(in_top5))
    assert found["videos"] == 12


def test_report_and_prediction(run, kitchen, monkeypatch, capsys):
    page = write_report([run]).read_text()
    for text in ("action top-1 accuracy", "Confusion matrix of the verbs", "Confusion matrix of the nouns"):
        assert text in page
    result = predict(load(run), kitchen / "24.mp4")
    assert len(result.labels) == 6
    assert result.scores.sum() == pytest.approx(1, rel=1e-5)
    assert set(result.labels[0].split()) <= {*VERBS, *COLORS}
    found = json.loads(cli(monkeypatch, capsys, "predict", run, kitchen / "24.mp4", "--json"))
    assert found["videos"][0]["predictions"][0]["label"] == result.labels[0]


def own_network(num_classes: int = 5, num_verbs: int = 2) -> torch.nn.Module:
    """Two classifiers with a dropout each, whose logits are concatenated."""

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Linear(6, 8)
            self.verb = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(8, num_verbs))
            self.noun = torch.nn.Sequential(
                torch.nn.Dropout(0.3), torch.nn.Linear(8, num_classes - num_verbs)
            )

        def forward(self, x):
            x = torch.cat([x.mean((2, 3, 4)), x[:, :, -1].mean((2, 3)) - x[:, :, 0].mean((2, 3))], 1)
            x = self.stem(x).relu()
            return torch.cat([self.verb(x), self.noun(x)], 1)

    return Own()


def test_a_network_with_two_separate_classifiers_and_mixing(kitchen, recipe, tmp_path, one_thread):
    recipe = replace(recipe, model=Build(own_network, num_verbs=2), task=VerbNoun(), mixing=Mixing())
    done = train(recipe, kitchen, tmp_path / "run")
    assert done.step == 12
    model = load(tmp_path / "run", recipe)
    assert predict(model, kitchen / "24.mp4").labels


def test_labels_of_another_task_are_refused(kitchen, tiny, recipe, tmp_path):
    with pytest.raises(
        UserError, match=r"train\.csv: labels are in the columns verb and noun.*task=verb_noun"
    ):
        train(recipe, kitchen, tmp_path / "a")
    with pytest.raises(UserError, match="task verb_noun expects the columns verb and noun"):
        train(replace(recipe, task=VerbNoun()), tiny, tmp_path / "b")


def test_a_noun_with_a_side_needs_its_mirror_image(kitchen, recipe, tmp_path):
    for split in ("train", "val"):
        text = (kitchen / f"{split}.csv").read_text().replace(",lid", ",left lid")
        (tmp_path / f"{split}.csv").write_text(text)
    with pytest.raises(UserError, match=r"'noun: left lid' mirrored would be .*train\.flip=0"):
        train(replace(recipe, task=VerbNoun()), tmp_path, tmp_path / "run")


def test_mirrored_and_reversed_clips_swap_verbs_and_keep_nouns(kitchen, recipe):
    samples = read_split(kitchen, "train")
    task = VerbNoun().for_classes(samples.classes)
    names = ("verb: turn left", "verb: turn right", *samples.classes[2:])
    views = replace(recipe.train, flip=1.0)
    dataset = VideoDataset(replace(samples, classes=names), views, seed=0, target=task.target)
    for sample in range(4):
        verb, noun = task.target(samples.labels_of(sample), 5).tolist()
        assert dataset[(0, sample)].labels.tolist() == [[1 - verb, noun]]
    views = replace(recipe.train, flip=0.0, reverse=1.0)  # opening and closing change places
    dataset = VideoDataset(samples, views, seed=0, target=task.target)
    verb, noun = task.target(samples.labels_of(0), 5).tolist()
    assert dataset[(0, 0)].labels.tolist() == [[1 - verb, noun]]


def test_multigrid_training(kitchen, recipe, tmp_path, one_thread):
    phases = tuple(Phase(epochs=1, batch=batch, clip_len=4, side=side) for batch, side in ((2, 16), (1, 24)))
    val = replace(recipe.val, clips=DenseClips(clip_len=4, frame_interval=2), crop=CenterCrop(size=(24, 24)))
    recipe = replace(
        recipe,
        train=TrainViews(clips=val.clips, short_side=24, crop=RandomResizedCrop(size=(24, 24))),
        val=val,
        test=val,
        task=VerbNoun(),
        multigrid=Multigrid(phases=phases),
    )
    assert train(recipe, kitchen, tmp_path / "run").metric == "action_top1"


def test_evaluation_takes_the_task_of_the_card(run, kitchen):
    model = load(run)
    card = card_of(model)
    samples = read_split(kitchen, "val", card.classes)
    result = evaluate(model, samples, card.val)
    assert result.task == card.task
    assert result.describe().startswith("action top-1")
    with pytest.raises(UserError, match="labels are in the columns verb and noun"):
        evaluate(own_network(), samples, card.val)
