"""C2D (Wang et al., arXiv:1711.07971, section 4.1): a 2-D ResNet in which only pooling combines frames."""

from mmaction_lite.models.inflated import inflated_resnet
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import MaxPool
from mmaction_lite.settings import PositiveInt, Probability


def c2d_r50(
    num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64, pool_padding: int = 1
) -> Recognizer:
    """Build C2D on ResNet-50: (B, 3, T, H, W) to logits (B, num_classes).

    Args:
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        width: channels of the stem.
        pool_padding: padding of the max pooling after the stem: 1 in PySlowFast and PyTorchVideo, 0 in
            MMAction2.
    """
    backbone = inflated_resnet(
        50, width, (0, 0, 0, 0), stem_frames=1, pool=MaxPool(padding=pool_padding), halve_time=True
    )
    return Recognizer(backbone, backbone.features, num_classes, dropout)
