"""Convert a trained model for faster inference; the outputs differ by rounding only."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmaction_lite.models.convolution import Conv2d, Conv2plus1d, Conv3d
from mmaction_lite.models.fast.fused import (
    Epilogue,
    FusedBlock,
    FusedConv2d,
    FusedConv2plus1d,
    FusedConv3d,
    add_epilogue,
)
from mmaction_lite.models.fast.memory_format import store_channels_last
from mmaction_lite.models.resnet import Block, MaxPool, ResNet, Stage

Model = TypeVar("Model", bound=nn.Module)


def optimize_for_inference(model: Model) -> Model:
    """Return a copy in evaluation mode with normalizations folded into the convolutions before them.

    In addition, the stem skips frames that a temporal stride of the pooling after it would drop, and
    convolutions of blocks and stems add the shortcut and apply ReLU themselves (see `fused`). A block may
    write over the output of the block before it. Modules without `conv_norm_pairs`, and blocks and ResNets
    with a `forward` of a subclass, run unchanged. The copy must not be trained, nor its weights changed.
    """
    if is_optimized(model):
        return copy.deepcopy(model).eval().requires_grad_(False)
    model = fold_normalizations(model)
    _fuse(model)
    store_channels_last(model, is_trained=False)
    return model


def fold_normalizations(model: Model) -> Model:
    """Return a copy in evaluation mode with normalizations folded into the convolutions before them.

    The copy consists of PyTorch's operators only, for exported graphs. The stem skips frames that a temporal
    stride of the pooling after it would drop.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(model.modules()):
        for conv, norm in getattr(module, "conv_norm_pairs", ()):
            _fold(module, conv, norm)
        if isinstance(module, ResNet):
            _skip_dropped_frames(module)
    return model


def is_optimized(model: nn.Module) -> bool:
    """Whether `optimize_for_inference` returned this model."""
    return any(isinstance(module, FusedConv2d | FusedConv3d) for module in model.modules())


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> None:
    """Fold one normalization into its convolution, if both are of a known type."""
    conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
    if isinstance(conv, Conv2plus1d):
        conv = conv.in_order[1]
    if not isinstance(conv, nn.Conv2d | nn.Conv3d) or not isinstance(norm, nn.BatchNorm2d):
        return
    if norm.running_mean is None or norm.running_var is None:
        return
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    module.set_submodule(norm_name, nn.Identity())


def _fuse(model: nn.Module) -> None:
    """Move ReLUs and sums into the epilogues of the convolutions before them."""
    with_relu: set[nn.Module] = set()
    overwriting: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, Block) and _is_fusible(module):
            module.__class__ = FusedBlock
            with_relu.update(module.convolutions)
        if type(module) is ResNet and _is_relu(module.relu) and _is_folded(module.bn1):
            module.relu = nn.Identity()
            with_relu.add(module.conv1)
    for module in model.modules():
        if type(module) is Stage:
            overwriting.update(_with_unshared_shortcut(module))
    for module in model.modules():
        if type(module) is Conv2plus1d and _is_convolution(module):
            module.__class__ = FusedConv2plus1d
            first, second = module.in_order
            with_relu.add(first)
            if module in with_relu:
                with_relu.add(second)
            if module in overwriting:
                overwriting.add(second)
    for module in model.modules():
        if type(module) in (Conv2d, Conv3d):
            assert isinstance(module, Conv2d | Conv3d)
            add_epilogue(module, Epilogue(relu=module in with_relu, overwrites=module in overwriting))


def _is_fusible(block: Block) -> bool:
    """Whether a block holds nothing but our convolutions, folded normalizations and ReLU."""
    convolutions = [*block.convolutions, *(() if block.downsample is None else block.downsample[:1])]
    norms = [block.get_submodule(norm) for _, norm in block.conv_norm_pairs]
    return (
        type(block).forward is Block.forward
        and _is_relu(block.activation)
        and all(map(_is_convolution, convolutions))
        and all(map(_is_folded, norms))
    )


def _is_convolution(module: nn.Module) -> bool:
    if type(module) is Conv2plus1d:
        return _is_folded(module.bn) and _is_relu(module.relu)
    return type(module) in (Conv2d, Conv3d)


def _is_relu(module: nn.Module) -> bool:
    return type(module) is nn.ReLU


def _is_folded(norm: nn.Module) -> bool:
    return type(norm) is nn.Identity


def _with_unshared_shortcut(stage: Stage) -> list[nn.Module]:
    """Return the last convolutions of blocks whose shortcut is projected or is another module's output."""
    blocks = [(position, module) for position, module in enumerate(stage) if isinstance(module, FusedBlock)]
    return [b.convolutions[-1] for position, b in blocks if position or b.downsample is not None]


def _skip_dropped_frames(net: ResNet) -> None:
    if isinstance(net.maxpool, MaxPool) and isinstance(net.conv1, Conv3d) and net.maxpool.stride_t > 1:
        stride_t, *pixels = net.conv1.stride
        net.conv1.stride = (stride_t * net.maxpool.stride_t, *pixels)
        net.maxpool.stride_t = 1
