"""R3D and MC3 (Tran et al., arXiv:1711.11248, section 3), in torchvision's form.

Both networks map (B, 3, T, H, W) to logits (B, num_classes).
"""

from collections.abc import Sequence

from mmaction_lite.models.convolution import Unit, conv3d
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import ResNet
from mmaction_lite.settings import PositiveInt, Probability


def _r3d(stages_in_time: int, num_classes: int, dropout: float, width: int) -> Recognizer:
    def units(stage: int, block: int) -> Sequence[Unit]:
        frames = 3 if stage < stages_in_time else 1
        stride_t = 2 if block == 0 and stage > 0 and frames > 1 else 1
        return conv3d(frames, 3, stride_t), conv3d(frames, 3), conv3d(1, 1, stride_t)

    backbone = ResNet(18, width, conv3d(3, 7), units, None)
    return Recognizer(backbone, backbone.features, num_classes, dropout)


def r3d_r18(num_classes: int = 400, dropout: Probability = 0.0, width: PositiveInt = 64) -> Recognizer:
    """Build R3D-18: ResNet-18 with 3×3×3 convolutions."""
    return _r3d(4, num_classes, dropout, width)


def mc3_r18(num_classes: int = 400, dropout: Probability = 0.0, width: PositiveInt = 64) -> Recognizer:
    """Build MC3-18: ResNet-18 with 3×3×3 convolutions in the first stage and 1×3×3 in the others."""
    return _r3d(1, num_classes, dropout, width)
