"""The classifier of a network, and the comparison of class names."""

import pytest
import torch
from torch import nn

from mmaction_lite.errors import UserError
from mmaction_lite.models import tsn_r10
from mmaction_lite.weights.converters.classifier import (
    class_order,
    classifier_names,
    compare_classes,
    place_classifier,
)


def test_the_classifier_is_the_last_linear_layer_of_the_head():
    assert classifier_names(tsn_r10()) == ["fc.weight", "fc.bias"]
    deep = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert classifier_names(deep) == ["2.weight", "2.bias"]
    assert classifier_names(deep, 3) == ["0.weight", "0.bias"]
    deep.head = nn.Conv1d(1, 1, 1, bias=False)
    assert classifier_names(deep) == ["head.weight"]
    assert classifier_names(nn.Linear(2, 2, bias=False)) == ["weight"]
    assert classifier_names(nn.Conv1d(1, 1, 1)) == []


class TwoHeads(nn.Module):
    """A classifier of verbs and one of nouns."""

    def __init__(self, verbs: int, nouns: int) -> None:
        super().__init__()
        self.head = nn.ModuleDict({"verbs": nn.Linear(4, verbs), "nouns": nn.Linear(6, nouns)})


CLASSES = ("verb: open", "verb: close", "noun: door", "noun: jar", "noun: lid")
NAMES = ["head.verbs.weight", "head.verbs.bias", "head.nouns.weight", "head.nouns.bias"]


def placed(classes: tuple[str, ...], verbs: int = 2) -> tuple[dict[str, torch.Tensor], list[str], str]:
    """The outcome for a checkpoint of `CLASSES` whose biases are 0, 1 and 0, 1, 2."""
    weights, ours = TwoHeads(2, 3).state_dict(), TwoHeads(verbs, len(classes) - verbs).state_dict()
    weights |= {"head.verbs.bias": torch.arange(2.0), "head.nouns.bias": torch.arange(3.0)}
    return place_classifier(weights, ours, NAMES, classes, CLASSES)


def test_a_classifier_may_have_several_layers():
    assert classifier_names(TwoHeads(2, 3), 5) == NAMES
    assert classifier_names(TwoHeads(2, 3)) == NAMES[2:]
    assert placed(CLASSES)[1:] == ([], "same")
    weights, kept, match = placed((*CLASSES[1::-1], *CLASSES[:1:-1]))
    assert (kept, match) == ([], "permuted")
    assert (weights["head.verbs.bias"].tolist(), weights["head.nouns.bias"].tolist()) == ([1, 0], [2, 1, 0])
    for other, verbs in ((CLASSES[:4], 2), (("verb: cut", *CLASSES[1:]), 2), (CLASSES[::-1], 2)):
        assert placed(other, verbs) == ({}, NAMES, "different")


def test_a_broken_classifier_stays_for_the_error_message():
    weights, ours = TwoHeads(2, 3).state_dict(), TwoHeads(2, 3).state_dict()
    for broken in (torch.ones(4), torch.ones(())):
        found = weights | {"head.nouns.bias": broken}
        assert place_classifier(found, ours, NAMES) == (found, [], "unknown")
    del weights["head.nouns.bias"]
    assert place_classifier(weights, ours, NAMES, CLASSES, CLASSES[::-1]) == (weights, [], "permuted")


def test_other_classes_need_a_classifier_that_is_known():
    """Without one, nothing is permuted or initialized again, so the logits would be of the wrong classes."""
    weights = nn.Conv1d(1, 2, 1).state_dict()
    assert place_classifier(weights, weights, [], ("a", "b"), ("a", "b")) == (weights, [], "same")
    for classes in (("b", "a"), ("a", "c")):
        with pytest.raises(UserError, match=r"no classifier to adapt; .* self\.head"):
            place_classifier(weights, weights, [], classes, ("a", "b"))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (("a", "b"), ("a", "b"), "same"),
        (("a", "b"), ["a", "b"], "same"),
        (("a", "b"), ("b", "a"), "permuted"),
        (("a", "b"), ("a", "c"), "different"),
        (("a", "b"), ("a", "b", "c"), "different"),
        (("a", "a"), ("a", "b"), "different"),
        (None, ("a", "b"), "unknown"),
        (("a", "b"), None, "unknown"),
        (("0", "1"), ("a", "b"), "unknown"),
        (("a", "b"), ("0", "1"), "unknown"),
        (("1", "0"), ("a", "b"), "different"),
        (("U\u0308bung", "b"), ("\u00dcbung", "b"), "same"),  # NFD and NFC
        (("U\u0308bung", "b"), ("b", "\u00dcbung"), "permuted"),
        (("Swiping Left", "b"), ("b", "swiping_left"), "permuted"),
        (("A", "a"), ("a", "A"), "permuted"),
        (("A", "a"), ("a", "a "), "different"),
    ],
)
def test_class_names_are_compared_in_the_order_of_the_logits(source, target, expected):
    assert compare_classes(source, target) == expected


def test_the_order_of_names_in_other_spellings():
    assert class_order(("Pull-ups", "Run"), ("run", "pull ups")) == [1, 0]
    assert class_order(("a", "b"), ("a", "c")) is None
