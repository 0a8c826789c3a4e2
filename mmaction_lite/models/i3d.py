"""I3D on ResNet-50 (Carreira and Zisserman, arXiv:1705.07750; ResNet form of Wang et al., arXiv:1711.07971).

The networks map (B, 3, T, H, W) to logits (B, num_classes).
"""

from mmaction_lite.models.inflated import inflated_resnet
from mmaction_lite.models.non_local import Mode, add_non_local
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import MaxPool, ResNet
from mmaction_lite.settings import PositiveInt, Probability

# Blocks with a 3×1×1 convolution: all of stage 1, every second one of the other stages.
INFLATE = (1, (1, 0), (1, 0), (0, 1))


def _i3d(backbone: ResNet, num_classes: int, dropout: float, non_local: Mode | None) -> Recognizer:
    if non_local:
        add_non_local(backbone, {2: (1, 3), 3: (1, 3, 5)}, non_local)
    return Recognizer(backbone, backbone.features, num_classes, dropout)


def i3d_r50(
    num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64, non_local: Mode | None = None
) -> Recognizer:
    """Build MMAction2's I3D, for clips of 32 frames: stem and first pooling have stride 2 in time.

    Args:
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        width: channels of the stem.
        non_local: add five non-local blocks of this mode to stages 2 and 3; see `NonLocal`.
    """
    backbone = inflated_resnet(
        50,
        width,
        INFLATE,
        stem_frames=5,
        stem_stride=2,
        pool=MaxPool(stride_t=2),
        halve_time=True,
        zero_init_residual=False,
    )
    return _i3d(backbone, num_classes, dropout, non_local)


def i3d_r50_heavy(
    num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64, non_local: Mode | None = None
) -> Recognizer:
    """Build PySlowFast's I3D, for clips of 8 frames: stem and first pooling have stride 1 in time.

    Args:
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        width: channels of the stem.
        non_local: see `i3d_r50`.
    """
    backbone = inflated_resnet(50, width, INFLATE, stem_frames=5, halve_time=True)
    return _i3d(backbone, num_classes, dropout, non_local)
