"""Combination of score files: fused, with fitted weights, and calibrated."""

from dataclasses import replace

import numpy as np
import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.inference.score_files import combine, summarize
from mmaction_lite.tasks.score_files import write_scores
from tests.tasks.test_fusion import shuffled, table_of


@pytest.fixture
def files(tmp_path):
    """Score files a, b and their validation scores, of 200 videos each."""
    paths = {}
    for name, seed in (("a", 0), ("b", 1), ("a_val", 0), ("b_val", 1)):
        table = replace(table_of(name, seed, 200), file=tmp_path / f"{name}.npz")
        write_scores(shuffled(table, seed + len(name)))
        paths[name] = table.file
    return paths


def test_one_file_is_returned_as_it_is(files):
    found = combine([files["a"]])
    assert found.result is found.tables[0]
    assert (found.weights, found.temperature) == ((1.0,), None)


def test_weights_are_given_or_fitted(files):
    both = [files["a"], files["b"]]
    assert combine(both, weights=[1, 0]).result.metrics == combine(both[:1]).result.metrics
    equal = combine(both)
    assert equal.weights == (1.0, 1.0)
    fitted = combine(both, fit_on=[files["a_val"], files["b_val"]])
    assert fitted.weights[0] > fitted.weights[1] > 0
    assert fitted.result.metrics["top1"] >= combine(both[1:]).result.metrics["top1"]


def test_a_temperature_keeps_top1_and_is_fitted_to_the_fused_validation_scores(files):
    both = [files["a"], files["b"]]
    found = combine(both, weights=[1, 2], temperature_from=[files["a_val"], files["b_val"]])
    assert found.temperature is not None
    assert found.fitted is not None
    assert found.temperature.value < 1  # a mean of two is less confident than it could be
    assert found.result.metrics == found.uncalibrated.metrics
    assert not np.array_equal(found.result.scores, found.uncalibrated.scores)
    assert "temperature" in found.result.protocol


def test_files_that_do_not_fit_are_one_line(files, tmp_path):
    both = [files["a"], files["b"]]
    with pytest.raises(UserError, match="pass one of them"):
        combine(both, weights=[1, 1], fit_on=both)
    with pytest.raises(UserError, match="--fit-on: 1 files for 2 score files; expected one for each"):
        combine(both, fit_on=both[:1])
    with pytest.raises(UserError, match="expected 2 numbers"):
        combine(both, weights=[1])
    other = replace(table_of("c", 0, 200), file=tmp_path / "c.npz", class_names=list("wxyz"))
    write_scores(other)
    with pytest.raises(UserError, match="expected validation scores of the same models"):
        combine(both[:1], temperature_from=[other.file])


def test_the_summary_holds_metrics_of_the_result_and_of_every_file(files):
    found = combine(
        [files["a"], files["b"]], weights=[2, 1], temperature_from=[files["a_val"], files["b_val"]]
    )
    made = summarize(found)
    assert {name: made[name] for name in found.result.metrics} == found.result.metrics
    assert (made["videos"], made["unreadable"], made["weights"]) == (200, 0, [2, 1])
    assert found.temperature is not None
    assert made["temperature"] == found.temperature.value
    assert [row["top1"] for row in made["files"][:2]] == [table.metrics["top1"] for table in found.tables]
    assert summarize(combine([files["a"]]))["temperature"] is None
