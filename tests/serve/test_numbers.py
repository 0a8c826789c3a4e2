"""Numbers for JSON."""

import math

import pytest

from mmaction_lite.serve.numbers import finite


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have(number):
    assert finite(number) is None


def test_other_numbers_stay():
    assert finite(0.5) == 0.5
    assert finite(3) == 3
