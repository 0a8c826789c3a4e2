"""The best path has the highest value of all sequences of states."""

from itertools import pairwise, product

import numpy as np
import pytest

from mmaction_lite.inference.segment_path import best_paths


def value(path, evidence, switch):
    changes = sum(a != b for a, b in pairwise(path))
    return sum(evidence[t, state] for t, state in enumerate(path)) - switch * changes


def is_allowed(path, min_windows):
    """Whether all stretches but the first and the last one have their minimum length."""
    cuts = [0, *(t for t in range(1, len(path)) if path[t] != path[t - 1]), len(path)]
    lengths = [(path[first], after - first) for first, after in pairwise(cuts)]
    return all(length >= min_windows[state] for state, length in lengths[1:-1])


@pytest.mark.parametrize("min_windows", [(1, 1, 1), (2, 2, 1), (3, 3, 3), (9, 9, 9)])
@pytest.mark.parametrize("switch", [0.3, 2.0])
def test_no_allowed_sequence_is_better(min_windows, switch):
    evidence = np.random.default_rng(1).normal(size=(6, 4, 3))
    found = best_paths(evidence, switch, np.array(min_windows))
    assert found.shape == (6, 4)
    allowed = [path for path in product(range(3), repeat=6) if is_allowed(path, min_windows)]
    for number in range(4):
        path = tuple(found[:, number].tolist())
        assert is_allowed(path, min_windows)
        best = max(value(other, evidence[:, number], switch) for other in allowed)
        assert value(path, evidence[:, number], switch) == pytest.approx(best)


def test_without_costs_every_window_has_its_best_state():
    evidence = np.random.default_rng(2).normal(size=(50, 2, 5))
    np.testing.assert_array_equal(best_paths(evidence, 0.0, np.ones(5, int)), evidence.argmax(2))
