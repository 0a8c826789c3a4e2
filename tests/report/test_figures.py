import numpy as np
import pytest

from mmaction_lite.report.figures import smooth


@pytest.mark.parametrize("length", [1, 2, 39, 79, 80, 81, 1000])
def test_smoothing_keeps_length_constants_and_the_middle_of_a_line(length):
    np.testing.assert_allclose(smooth(np.full(length, 3.0)), 3.0)
    middle = slice(length // 4, length - length // 4)
    np.testing.assert_allclose(smooth(np.arange(length, dtype=float))[middle], np.arange(length)[middle])
