"""C2D: only pooling combines frames."""

import pytest
import torch

from mmaction_lite.models.c2d import c2d_r50
from mmaction_lite.models.convolution import Conv3d


def test_no_convolution_combines_frames():
    model = c2d_r50(width=8)
    assert {conv.kernel_size[0] for conv in model.modules() if isinstance(conv, Conv3d)} == {1}


@pytest.mark.parametrize(("padding", "size"), [(1, 8), (0, 7)])
def test_padding_of_the_pooling(padding, size):
    model = c2d_r50(num_classes=2, width=8, pool_padding=padding)
    with torch.no_grad():
        stem = model.backbone.run_stem(torch.zeros(4, 3, 32, 32), 2)  # pyright: ignore
    assert stem.shape == (4, 8, size, size)


def test_frames_are_halved_after_the_first_stage():
    backbone = c2d_r50(num_classes=2, width=8).backbone.eval()
    with torch.no_grad():
        assert len(backbone(torch.zeros(2 * 8, 3, 32, 32), 2)) == 2 * 4
