"""SlowOnly: the slow pathway of SlowFast (Feichtenhofer et al., arXiv:1812.03982) without the fast one.

The published variants 4x16 and 8x8 are the same network on different clips. The networks map (B, 3, T, H, W)
to logits (B, num_classes).
"""

from mmaction_lite.models.inflated import inflated_resnet
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.settings import PositiveInt, Probability

# Temporal convolutions in stages 3 and 4 only, whose feature maps are small (table 1 of the paper).
INFLATE = (0, 0, 1, 1)


def _slowonly(depth: int, num_classes: int, dropout: float, width: int) -> Recognizer:
    backbone = inflated_resnet(depth, width, INFLATE, stem_frames=1)
    return Recognizer(backbone, backbone.features, num_classes, dropout)


def slowonly_r50(num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64) -> Recognizer:
    """Build SlowOnly on ResNet-50."""
    return _slowonly(50, num_classes, dropout, width)


def slowonly_r101(num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64) -> Recognizer:
    """Build SlowOnly on ResNet-101."""
    return _slowonly(101, num_classes, dropout, width)
