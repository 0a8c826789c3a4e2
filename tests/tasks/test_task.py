"""Every task has the interface `Task`, and no other module depends on the kind of labels."""

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaction_lite.tasks.named import TASKS, task_named
from mmaction_lite.tasks.task import Task

PACKAGE = Path(__file__).parents[2] / "mmaction_lite"
CLASSES = {
    "single_label": ("a", "b", "c", "d"),
    "multi_label": ("a", "b", "c", "d"),
    "verb_noun": ("verb: a", "verb: b", "noun: a", "noun: b", "noun: c"),
}
LABELS = {
    "single_label": [[0], [3], [1]],
    "multi_label": [[0, 2], [], [3]],
    "verb_noun": [[0, 2], [1, 4], [1, 3]],
}


@pytest.fixture(params=TASKS)
def name(request):
    return request.param


@pytest.fixture
def task(name):
    return task_named(name).for_classes(CLASSES[name])


@pytest.fixture
def targets(name, task):
    labels = [np.array(own, np.int64) for own in LABELS[name]]
    return torch.from_numpy(np.stack([task.target(own, len(CLASSES[name])) for own in labels]))


@pytest.fixture
def logits(name):
    return torch.randn(3, len(CLASSES[name]), generator=torch.Generator().manual_seed(0))


def test_a_task_has_all_methods_and_pickles(task):
    assert isinstance(task, Task)
    assert pickle.loads(pickle.dumps(task)) == task


def test_losses_of_dense_targets_are_those_of_the_targets(task, targets, logits):
    dense = task.dense(targets, logits.shape[1])
    assert dense.shape == logits.shape
    torch.testing.assert_close(task.loss(logits, targets), task.loss(logits, dense))
    torch.testing.assert_close(task.dense(dense, logits.shape[1]), dense)
    assert task.correct(logits, targets).tolist() == task.correct(logits, dense).tolist()


def test_class_weights_multiply_terms(task, targets, logits):
    weights = torch.full((logits.shape[1],), 2.0)
    torch.testing.assert_close(
        task.loss(logits, targets, class_weights=weights), 2 * task.loss(logits, targets)
    )
    counts = np.arange(1, logits.shape[1] + 1)
    assert task.balanced_weights(counts).shape == counts.shape


def test_correct_confident_scores_have_the_highest_metrics(name, task, logits):
    labels = np.concatenate([np.array(own, np.int64) for own in LABELS[name]])
    counts = np.array(list(map(len, LABELS[name])))
    num_classes = len(CLASSES[name])
    targets = task.targets(labels, counts, num_classes)
    assert targets.shape == task.target_shape(len(counts), num_classes)
    task.check_targets(targets, num_classes)
    stacked = np.stack([task.target(np.array(own, np.int64), num_classes) for own in LABELS[name]])
    sure = task.probabilities(20 * task.dense(torch.from_numpy(stacked), num_classes) - 10).numpy()
    has_classes = counts > 0
    found = task.metrics(sure[has_classes], targets[has_classes])
    assert set(task.shown_metrics(num_classes)) <= found.keys()
    assert found[next(iter(found))] == 1
    assert task.log_loss(sure, targets) < 0.01
    assert not task.mistakes(sure, targets, CLASSES[name], 5)
    names, scores = task.ranked(sure[0], CLASSES[name])
    assert len(names) == len(scores)
    assert (np.diff(scores) <= 0).all()
    with pytest.raises(ValueError, match="expected"):
        task.check_targets(targets + 99, num_classes)


def label_branches(text: str) -> list[str]:
    """The expressions of a module that depend on the kind of labels."""
    words = {*TASKS, "cross_entropy", "binary_cross_entropy", "softmax", "sigmoid"}
    kinds = {"SingleLabel", "MultiLabel", "VerbNoun"}
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Attribute | ast.Compare | ast.Call):
            continue
        inner = list(ast.walk(node))
        attributes = {child.attr for child in inner if isinstance(child, ast.Attribute)}
        names = {child.id for child in inner if isinstance(child, ast.Name)}
        strings = {child.value for child in inner if isinstance(child, ast.Constant)}
        if isinstance(node, ast.Attribute) and node.attr in ("label_ends", "is_multi_label", "activation"):
            found.append(ast.unparse(node))
        is_shape = isinstance(node, ast.Attribute) and node.attr in ("ndim", "dtype", "shape")
        if is_shape and {"labels", "targets", "label", "target"} & (names | attributes):
            found.append(ast.unparse(node))
        if isinstance(node, ast.Compare) and (strings & words or "label_columns" in names | attributes):
            found.append(ast.unparse(node))
        if isinstance(node, ast.Call) and "isinstance" in names and names & kinds:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.is_relative_to(PACKAGE / "tasks")
        and not path.is_relative_to(PACKAGE / "data" / "annotations")
        and not path.is_relative_to(PACKAGE / "models")  # which know no labels
    ],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_no_other_module_branches_on_the_kind_of_labels(path):
    assert not label_branches(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "if labels.ndim == 1: pass",
        "x = batch.labels.shape[1:]",
        "if samples.label_ends is None: pass",
        "y = samples.is_multi_label",
        'if recipe.task.criterion == "cross_entropy": pass',
        'if card.activation == "softmax": pass',
        'z = samples.label_columns == ("label",)',
        "if isinstance(card.task, MultiLabel): pass",
        "if targets.dtype == bool: pass",
    ],
)
def test_branches_are_found(text):
    assert label_branches(text)
