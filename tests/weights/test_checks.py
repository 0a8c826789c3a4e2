"""Weights are compared with the network, and their values are checked, before they are loaded."""

import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.weights.checks import check_fit, check_values, fits_dtype


@pytest.mark.parametrize(
    ("dtype", "wanted", "fits"),
    [
        (torch.float16, torch.float32, True),
        (torch.float64, torch.float32, True),
        (torch.int32, torch.int64, True),
        (torch.complex64, torch.complex64, True),
        (torch.float8_e4m3fn, torch.float8_e4m3fn, True),
        (torch.float8_e4m3fn, torch.float32, False),
        (torch.complex64, torch.float32, False),
        (torch.int64, torch.float32, False),
        (torch.float32, torch.int64, False),
    ],
)
def test_floats_are_loaded_into_floats_and_integers_into_integers(dtype, wanted, fits):
    assert fits_dtype(dtype, wanted) is fits


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, r"1 of 1 tensors do not fit Net; the first is a: absent in the file, \(2,\) in the model"),
        ({"a": torch.ones(2, dtype=torch.int8)}, r"a: int8 \(2,\) in the file"),
        ({"a": torch.ones(())}, r"a: \(\) in the file"),
        ({"a": torch.ones(2), "b\x1b": torch.ones(1)}, r"first is b\\x1b: \(1,\) in the file, absent in the"),
    ],
)
def test_tensors_that_do_not_fit_are_named(weights, message):
    with pytest.raises(UserError, match=message):
        check_fit(weights, {"a": torch.ones(2)}, "Net")


def test_a_network_without_weights_is_refused():
    with pytest.raises(UserError, match="Net has 1 tensors without elements, such as a"):
        check_fit({"a": torch.ones(0)}, {"a": torch.ones(0)}, "Net")


def test_damaged_values_are_named_and_counted():
    nan = torch.tensor([1.0, float("nan"), float("inf")])
    wanted = dict.fromkeys("abcde", torch.ones(3))
    weights = dict.fromkeys("abcd", nan) | {"e": torch.ones(3)}
    with pytest.raises(
        UserError, match=r"damaged: a \(2 of 3 values\), b .*, c .* and 1 more: 4 of 5 .* not fin"
    ):
        check_values(weights, wanted)
    large = {"a": torch.tensor([1e300], dtype=torch.float64)}
    with pytest.raises(UserError, match=r"a \(1 of 1 values\)"):
        check_values(large, {"a": torch.ones(1)})
    check_values(large, {"a": torch.ones(1, dtype=torch.float64)})
    with pytest.raises(UserError, match=r"bn\.running_var \(1 of 2 values\): 1 of 1 .* negative variances"):
        check_values({"bn.running_var": torch.tensor([1.0, -1e-9])}, {"bn.running_var": torch.ones(2)})
    check_values({"n": torch.tensor(3), "z": torch.ones(2, dtype=torch.complex64)}, {})
