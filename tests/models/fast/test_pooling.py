"""Max pooling of uint8 frames."""

import pytest
import torch
from torch.nn import functional

from mmaction_lite.models.fast.pooling import max_pool, max_pool_uint8


@pytest.mark.parametrize("size", [(8, 6), (21, 28), (7, 5), (2, 3), (1, 1), (1, 4)])
def test_max_pooling_of_uint8_equals_that_of_floats(size: tuple[int, int]) -> None:
    x = torch.randint(0, 256, (3, 8, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    got = max_pool_uint8(x)
    assert torch.equal(got.float(), functional.max_pool2d(x.float(), 3, 2, 1))
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(max_pool(x, 1), got)
    assert torch.equal(max_pool(x.float(), 1), got.float())
