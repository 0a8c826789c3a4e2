import pytest
import torch

from mmaction_lite.export.image_convolution import ImageConv3d, ImageDepthwiseConv3d, use_image_convolutions
from mmaction_lite.models.convolution import Conv3d, DepthwiseConv3d


@pytest.mark.parametrize("num_frames", [1, 2, 7])
@pytest.mark.parametrize(
    ("kernel", "stride", "bias"),
    [
        ((1, 3), (2, 2), False),
        ((3, 1), (1, 1), True),
        ((3, 1), (2, 1), False),
        ((5, 1), (4, 1), True),
        ((3, 1), (1, 2), False),
        ((5, 7), (1, 2), False),
        ((3, 3), (2, 2), True),
        ((5, 7), (4, 2), True),
    ],
)
def test_the_results_are_those_of_3d_operators(kernel, stride, bias, num_frames):
    torch.manual_seed(0)
    conv = Conv3d(3, 4, kernel, stride, bias=bias)
    x = torch.randn(2 * num_frames, 3, 9, 10)
    with torch.no_grad():
        expected = conv(x, 2)
        use_image_convolutions(conv)
        assert type(conv) is ImageConv3d
        torch.testing.assert_close(conv(x, 2), expected)


@pytest.mark.parametrize("num_frames", [1, 2, 7])
@pytest.mark.parametrize(
    ("kernel", "stride"), [((3, 3), (1, 1)), ((5, 3), (1, 2)), ((5, 1), (1, 1)), ((3, 3), (2, 2))]
)
def test_depthwise_results_are_those_of_3d_operators(kernel, stride, num_frames):
    torch.manual_seed(0)
    conv = DepthwiseConv3d(4, kernel, stride)
    conv.bias = torch.nn.Parameter(torch.randn(4))  # of a folded normalization
    x = torch.randn(2 * num_frames, 4, 9, 10)
    with torch.no_grad():
        expected = conv(x, 2)
        use_image_convolutions(conv)
        assert type(conv) is ImageDepthwiseConv3d
        torch.testing.assert_close(conv(x, 2), expected)
