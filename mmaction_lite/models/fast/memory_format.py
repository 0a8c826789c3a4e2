"""Memory format of weights."""

import torch
from torch import nn

from mmaction_lite.models.convolution import Conv2d, Conv3d


def store_channels_last(model: nn.Module, *, is_trained: bool) -> None:
    """Convert the weights of a model's convolutions to channels-last memory format, in place.

    Kernels, and the matrix products of `convolve_time`, read weights in this format; without it, every step
    copies them. Shapes and values stay. Do not use it with FSDP2, which shards contiguous weights only.

    Args:
        model: any network; only `Conv2d` and `Conv3d` of this package change.
        is_trained: keep kernels over both frames and pixels as they are: a training step of R3D-18 takes 5 %
            less time that way.
    """
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
        elif isinstance(module, Conv3d) and (1 in module.kernel_size or not is_trained):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)
