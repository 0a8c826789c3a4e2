"""The classifier of a network, and the comparison of class names."""

import pytest
from torch import nn

from mmaction_lite.models import tsn_r10
from mmaction_lite.weights.converters.classifier import classifier_names, compare_classes


def test_the_classifier_is_the_last_linear_layer_of_the_head():
    assert classifier_names(tsn_r10()) == ["fc.weight", "fc.bias"]
    deep = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert classifier_names(deep) == ["2.weight", "2.bias"]
    assert classifier_names(deep, 3) == ["0.weight", "0.bias"]
    deep.head = nn.Conv1d(1, 1, 1, bias=False)
    assert classifier_names(deep) == ["head.weight"]
    assert classifier_names(nn.Linear(2, 2, bias=False)) == ["weight"]
    assert classifier_names(nn.Conv1d(1, 1, 1)) == []


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
    ],
)
def test_class_names_are_compared_in_the_order_of_the_logits(source, target, expected):
    assert compare_classes(source, target) == expected
