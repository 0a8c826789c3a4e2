"""I3D on ResNet (Carreira and Zisserman, arXiv:1705.07750; ResNets as in Wang et al., arXiv:1711.07971).

Every builder maps (B, 3, T, H, W) to (B, num_classes).
"""

from mmaction_lite.models.inflated import inflated_resnet
from mmaction_lite.models.non_local import Mode, add_non_local
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import MaxPool, ResNet

# Every block of stage 1, then every second one.
INFLATE = (1, (1, 0), (1, 0), (0, 1))


def _i3d(backbone: ResNet, num_classes: int, dropout: float, non_local: Mode | None) -> Recognizer:
    if non_local:
        add_non_local(backbone, {2: (1, 3), 3: (1, 3, 5)}, non_local)
    return Recognizer(backbone, backbone.features, num_classes, dropout)


def i3d_r50(
    num_classes: int = 400, dropout: float = 0.5, width: int = 64, non_local: Mode | None = None
) -> Recognizer:
    """I3D for clips of 32 frames, MMAction2's form: the stem and the pooling after it stride in time."""
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
    num_classes: int = 400, dropout: float = 0.5, width: int = 64, non_local: Mode | None = None
) -> Recognizer:
    """I3D for clips of 8 frames, PySlowFast's form: the stem keeps every frame."""
    backbone = inflated_resnet(50, width, INFLATE, stem_frames=5, halve_time=True)
    return _i3d(backbone, num_classes, dropout, non_local)
