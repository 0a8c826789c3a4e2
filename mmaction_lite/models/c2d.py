"""C2D (Wang et al., arXiv:1711.07971, section 4.1): the image network; only pooling joins frames."""

from mmaction_lite.models.inflated import inflated_resnet
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import MaxPool


def c2d_r50(
    num_classes: int = 400, dropout: float = 0.5, width: int = 64, pool_padding: int = 1
) -> Recognizer:
    """C2D on ResNet-50: (B, 3, T, H, W) to (B, num_classes).

    Args:
        num_classes: length of the logits.
        dropout: before the linear layer.
        width: channels of the stem.
        pool_padding: of the maximum after the stem: 1 in PySlowFast and PyTorchVideo, 0 in MMAction2.
    """
    backbone = inflated_resnet(
        50, width, (0, 0, 0, 0), stem_frames=1, pool=MaxPool(padding=pool_padding), halve_time=True
    )
    return Recognizer(backbone, backbone.features, num_classes, dropout)
