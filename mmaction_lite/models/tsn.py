"""Temporal Segment Networks (Wang et al., arXiv:1608.00859): an image network on a few frames of a video.

The networks map (B, 3, T, H, W) to logits (B, num_classes).
"""

from torch import Tensor, nn

from mmaction_lite.models.convolution import conv2d
from mmaction_lite.models.network import layers
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import MaxPool, ResNet
from mmaction_lite.settings import PositiveInt, Probability


class EachFrame(nn.Module):
    """Backbone of any image network.

    Args:
        network: maps images (N, 3, H, W) to features (N, D) or feature maps (N, D, h, w).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def layers(self) -> list[nn.Module]:
        """Return the layers of the image network; see `models.network`."""
        return layers(self.network)

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map frames (B·T, 3, H, W) to features (B·T, D, h, w)."""
        x = self.network(x)
        return x if x.ndim == 4 else x[:, :, None, None]


def image_resnet(
    depth: int, width: int, *, shift_div: int = 0, step: int = 1, causal: bool = False, small: bool = False
) -> ResNet:
    """Return the image ResNet, optionally with a temporal shift before the first convolution of its blocks.

    Args:
        depth: number of layers, a key of `resnet.DEPTHS`.
        width: channels of the stem.
        shift_div: 1/shift_div of the channels is shifted in each direction; 0: no shift.
        step: shift in every step-th block of a stage.
        causal: see `convolution.Conv2d`.
        small: use a 3×3 stem without pooling, for frames of about 50 pixels.
    """

    def units(stage: int, block: int) -> tuple:
        first = 1 if depth >= 50 else 3
        shifted = conv2d(first, shift_div if block % step == 0 else 0, causal=causal)
        return (shifted, conv2d(3), conv2d(1), conv2d(1)) if depth >= 50 else (shifted, conv2d(3), conv2d(1))

    if small:
        return ResNet(depth, width, conv2d(3), units, None, first_stride=2)
    return ResNet(depth, width, conv2d(7), units, MaxPool())


def tsn(backbone: nn.Module, features: int, num_classes: int = 400, dropout: Probability = 0.4) -> Recognizer:
    """Build TSN on any image network, such as one of timm.

    Args:
        backbone: maps images (N, 3, H, W) to features (N, D) or feature maps (N, D, h, w). Its layers are
            those of its method `layers`; without one it is a single layer.
        features: D.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
    """
    return Recognizer(EachFrame(backbone), features, num_classes, dropout, per_frame=True)


def _tsn(backbone: ResNet, num_classes: int, dropout: float) -> Recognizer:
    return Recognizer(backbone, backbone.features, num_classes, dropout, per_frame=True)


def tsn_r10(num_classes: int = 10, dropout: Probability = 0.1, width: PositiveInt = 8) -> Recognizer:
    """Build TSN on a ResNet of ten layers, for frames of about 50 pixels."""
    return _tsn(image_resnet(10, width, small=True), num_classes, dropout)


def tsn_r18(num_classes: int = 400, dropout: Probability = 0.4, width: PositiveInt = 64) -> Recognizer:
    """Build TSN on ResNet-18."""
    return _tsn(image_resnet(18, width), num_classes, dropout)


def tsn_r34(num_classes: int = 400, dropout: Probability = 0.4, width: PositiveInt = 64) -> Recognizer:
    """Build TSN on ResNet-34."""
    return _tsn(image_resnet(34, width), num_classes, dropout)


def tsn_r50(num_classes: int = 400, dropout: Probability = 0.4, width: PositiveInt = 64) -> Recognizer:
    """Build TSN on ResNet-50."""
    return _tsn(image_resnet(50, width), num_classes, dropout)


def tsn_r101(num_classes: int = 400, dropout: Probability = 0.4, width: PositiveInt = 64) -> Recognizer:
    """Build TSN on ResNet-101."""
    return _tsn(image_resnet(101, width), num_classes, dropout)
