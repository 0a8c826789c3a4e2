import numpy as np
import pytest

from mmaction_lite.report.figures import column, curves, overlaid_curves, smooth


@pytest.mark.parametrize("length", [1, 2, 39, 79, 80, 81, 1000])
def test_smoothing_keeps_length_constants_and_the_middle_of_a_line(length):
    np.testing.assert_allclose(smooth(np.full(length, 3.0)), 3.0)
    middle = slice(length // 4, length - length // 4)
    np.testing.assert_allclose(smooth(np.arange(length, dtype=float))[middle], np.arange(length)[middle])


def test_values_that_are_not_finite_or_overflow_are_left_out_of_the_curves():
    rows = [
        {"epoch": n, "loss": loss} for n, loss in enumerate((1.0, float("nan"), 1e308, float("inf"), 2.0))
    ]
    assert column(rows, "loss")[1].tolist() == [1.0, 2.0]
    (curve,) = curves(rows, [])
    assert curve["alt"] == "Loss over epochs: training from 1 to 2."
    assert curves([{"epoch": 0, "loss": 1e308}], []) == []


def test_curves_of_several_runs_have_one_line_each():
    runs = [([{"epoch": 1, "loss": 1.0}], [{"epoch": 1, "split": "val", "top1": n / 10}]) for n in range(3)]
    loss, accuracy = overlaid_curves(runs)
    assert loss["title"] == "Training loss"
    assert "run 1 from 0 to 0; run 2 from 10 to 10; run 3 from 20 to 20" in accuracy["alt"]
    assert overlaid_curves(runs[:1]) == []
