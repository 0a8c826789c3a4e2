"""Temporal Shift Module (Lin et al., arXiv:1811.08383): TSN with channels shifted between adjacent frames.

The shift is part of the residual branch ("residual shift", section 3.2), so shortcuts do not move frames. The
networks map (B, 3, T, H, W) to logits (B, num_classes). `shift_div`: 1/shift_div of the channels is shifted
in each direction.

The online networks (section 4.2) only receive channels of the frame before: the first 1/shift_div of the
channels moves one frame ahead, in the same blocks, as in the authors' online demo. No frame depends on a
later one, so a stream stores these channels of one frame (`models.online_step`). The logits of a clip are the
mean over its frames, as in the other networks.
"""

from mmaction_lite.models.mobilenet import MobileNetV2
from mmaction_lite.models.non_local import Mode, add_non_local
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import ResNet
from mmaction_lite.models.tsn import image_resnet
from mmaction_lite.settings import NonNegativeInt, PositiveInt, Probability


def _tsm(backbone: ResNet | MobileNetV2, num_classes: int, dropout: float) -> Recognizer:
    return Recognizer(backbone, backbone.features, num_classes, dropout, init_std=0.001, per_frame=True)


def tsm_r10(
    num_classes: int = 10, dropout: Probability = 0.1, width: PositiveInt = 8, shift_div: NonNegativeInt = 4
) -> Recognizer:
    """Build TSM on a ResNet of ten layers, for frames of about 50 pixels."""
    return _tsm(image_resnet(10, width, shift_div=shift_div, small=True), num_classes, dropout)


def tsm_r18(
    num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64, shift_div: NonNegativeInt = 8
) -> Recognizer:
    """Build TSM on ResNet-18."""
    return _tsm(image_resnet(18, width, shift_div=shift_div), num_classes, dropout)


def tsm_r34(
    num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64, shift_div: NonNegativeInt = 8
) -> Recognizer:
    """Build TSM on ResNet-34."""
    return _tsm(image_resnet(34, width, shift_div=shift_div), num_classes, dropout)


def tsm_r50(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 64,
    shift_div: NonNegativeInt = 8,
    non_local: Mode | None = None,
) -> Recognizer:
    """Build TSM on ResNet-50.

    Args:
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        width: channels of the stem.
        shift_div: see above.
        non_local: mode of five non-local blocks, after every second block of stages 2 and 3; see `NonLocal`.
    """
    backbone = image_resnet(50, width, shift_div=shift_div)
    if non_local:
        add_non_local(backbone, {2: (0, 2), 3: (0, 2, 4)}, non_local)
    return _tsm(backbone, num_classes, dropout)


def tsm_r101(
    num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64, shift_div: NonNegativeInt = 8
) -> Recognizer:
    """Build TSM on ResNet-101, with the shift in every second block, as in the authors' implementation."""
    return _tsm(image_resnet(101, width, shift_div=shift_div, step=2), num_classes, dropout)


def tsm_mobilenetv2(
    num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 32, shift_div: NonNegativeInt = 8
) -> Recognizer:
    """Build TSM on MobileNetV2."""
    return _tsm(MobileNetV2(width, shift_div), num_classes, dropout)


def tsm_online_r10(
    num_classes: int = 10, dropout: Probability = 0.1, width: PositiveInt = 8, shift_div: PositiveInt = 4
) -> Recognizer:
    """Build the online TSM on a ResNet of ten layers, for frames of about 50 pixels."""
    backbone = image_resnet(10, width, shift_div=shift_div, causal=True, small=True)
    return _tsm(backbone, num_classes, dropout)


def tsm_online_r50(
    num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64, shift_div: PositiveInt = 8
) -> Recognizer:
    """Build the online TSM on ResNet-50."""
    return _tsm(image_resnet(50, width, shift_div=shift_div, causal=True), num_classes, dropout)


def tsm_online_mobilenetv2(
    num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 32, shift_div: PositiveInt = 8
) -> Recognizer:
    """Build the online TSM on MobileNetV2."""
    return _tsm(MobileNetV2(width, shift_div, causal=True), num_classes, dropout)
