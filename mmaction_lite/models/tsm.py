"""Temporal Shift Module (Lin et al., arXiv:1811.08383): TSN whose blocks see the neighbouring frames.

The shift stands on the residual branch ("blockres", section 3.2), so the shortcut keeps every frame in its
place. Every builder maps (B, 3, T, H, W) to (B, num_classes).
"""

from mmaction_lite.models.mobilenet import MobileNetV2
from mmaction_lite.models.non_local import Mode, add_non_local
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import ResNet
from mmaction_lite.models.tsn import image_resnet


def _tsm(backbone: ResNet | MobileNetV2, num_classes: int, dropout: float) -> Recognizer:
    return Recognizer(backbone, backbone.features, num_classes, dropout, init_std=0.001, per_frame=True)


def tsm_r10(num_classes: int = 10, dropout: float = 0.1, width: int = 8, shift_div: int = 4) -> Recognizer:
    """TSM for frames of some 50 pixels, ten layers deep."""
    return _tsm(image_resnet(10, width, shift_div=shift_div, small=True), num_classes, dropout)


def tsm_r18(num_classes: int = 400, dropout: float = 0.5, width: int = 64, shift_div: int = 8) -> Recognizer:
    """TSM on ResNet-18."""
    return _tsm(image_resnet(18, width, shift_div=shift_div), num_classes, dropout)


def tsm_r34(num_classes: int = 400, dropout: float = 0.5, width: int = 64, shift_div: int = 8) -> Recognizer:
    """TSM on ResNet-34."""
    return _tsm(image_resnet(34, width, shift_div=shift_div), num_classes, dropout)


def tsm_r50(
    num_classes: int = 400,
    dropout: float = 0.5,
    width: int = 64,
    shift_div: int = 8,
    non_local: Mode | None = None,
) -> Recognizer:
    """TSM on ResNet-50; `non_local` adds five blocks, after every second block of stages 2 and 3."""
    backbone = image_resnet(50, width, shift_div=shift_div)
    if non_local:
        add_non_local(backbone, {2: (0, 2), 3: (0, 2, 4)}, non_local)
    return _tsm(backbone, num_classes, dropout)


def tsm_r101(num_classes: int = 400, dropout: float = 0.5, width: int = 64, shift_div: int = 8) -> Recognizer:
    """TSM on ResNet-101, shifted in every second block as the authors do from this depth on."""
    return _tsm(image_resnet(101, width, shift_div=shift_div, step=2), num_classes, dropout)


def tsm_mobilenetv2(
    num_classes: int = 400, dropout: float = 0.5, width: int = 32, shift_div: int = 8
) -> Recognizer:
    """TSM on MobileNetV2."""
    return _tsm(MobileNetV2(width, shift_div), num_classes, dropout)
