"""SlowOnly: the slow pathway of SlowFast (Feichtenhofer et al., arXiv:1812.03982) by itself.

4x16 and 8x8 are the same network on other clips. Every builder maps (B, 3, T, H, W) to (B, num_classes).
"""

from mmaction_lite.models.inflated import inflated_resnet
from mmaction_lite.models.recognizer import Recognizer

# Time is looked at only where features are small.
INFLATE = (0, 0, 1, 1)


def _slowonly(depth: int, num_classes: int, dropout: float, width: int) -> Recognizer:
    backbone = inflated_resnet(depth, width, INFLATE, stem_frames=1)
    return Recognizer(backbone, backbone.features, num_classes, dropout)


def slowonly_r50(num_classes: int = 400, dropout: float = 0.5, width: int = 64) -> Recognizer:
    """SlowOnly on ResNet-50."""
    return _slowonly(50, num_classes, dropout, width)


def slowonly_r101(num_classes: int = 400, dropout: float = 0.5, width: int = 64) -> Recognizer:
    """SlowOnly on ResNet-101."""
    return _slowonly(101, num_classes, dropout, width)
