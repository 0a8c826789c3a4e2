"""The same numbers for less work, in models that are not trained any more."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmaction_lite.models.convolution import Conv2d, Conv2plus1d, Conv3d, store_channels_last
from mmaction_lite.models.fast.fused import Epilogue
from mmaction_lite.models.resnet import Block, MaxPool, ResNet, Stage

Model = TypeVar("Model", bound=nn.Module)


def optimize_for_inference(model: Model) -> Model:
    """A copy in evaluation mode whose normalisations are folded into the convolutions before them.

    Where pooling after the stem drops frames, the stem does not compute them either. Convolutions of blocks
    and stems add and activate by themselves, see `fused`; what a block of a stage yields may be written over
    by the next. The outputs differ by rounding only; the copy must not be trained, nor its weights changed.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if is_optimized(model):
        return model
    for module in list(model.modules()):
        for conv, norm in _normalised(module):
            _fold(module, conv, norm)
        if isinstance(module, Block) and module.downsample is not None:
            _fold(module.downsample, "0", "1")
        if isinstance(module, ResNet):
            _skip_dropped_frames(module)
    _end_convolutions(model)
    store_channels_last(model, is_trained=False)
    return model


def is_optimized(model: nn.Module) -> bool:
    """Whether a network comes from here already, or from `quantize_for_inference`."""
    convolutions = [module for module in model.modules() if isinstance(module, Conv2d | Conv3d)]
    return any(conv.epilogue is not None for conv in convolutions)


def _normalised(module: nn.Module) -> list[tuple[str, str]]:
    """Names of the convolutions of a module, each with the normalisation right after it."""
    if isinstance(module, Conv2plus1d):
        return [("temporal" if module.time_first else "spatial", "bn")]
    if not type(module).__module__.startswith("mmaction_lite.models."):
        return []  # in a network of somebody else, names do not tell what follows on what
    names = dict(module.named_children())
    for last in ("conv", "out"):  # lateral connections, non-local blocks
        if last in names and isinstance(names.get("bn"), nn.BatchNorm2d):
            return [(last, "bn")]
    return [(f"conv{n}", f"bn{n}") for n in range(1, 4) if f"conv{n}" in names and f"bn{n}" in names]


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
    if isinstance(conv, Conv2plus1d):
        conv = conv.spatial if conv.time_first else conv.temporal
    assert isinstance(conv, nn.Conv2d | nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    setattr(module, norm_name, nn.Identity())


def _end_convolutions(model: nn.Module) -> None:
    """Let convolutions do what follows on them."""
    activated: set[nn.Module] = set()
    overwriting: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, Stage):
            overwriting.update(_with_own_shortcut(module))
        if isinstance(module, Block) and type(module.activation) is nn.ReLU:
            module.is_fused = True
            activated.update(module.convolutions)
        if isinstance(module, ResNet):
            module.relu = nn.Identity()
            activated.add(module.conv1)
    for module in model.modules():
        if isinstance(module, Conv2plus1d):
            first, second = module.in_order
            activated.add(first)
            if module in activated:
                activated.add(second)
            if module in overwriting:
                overwriting.add(second)
    for module in model.modules():
        if isinstance(module, Conv2d | Conv3d):
            module.epilogue = Epilogue(relu=module in activated, overwrites=module in overwriting)


def _with_own_shortcut(stage: Stage) -> list[nn.Module]:
    """The last convolutions of blocks whose shortcut is projected, or comes from the module before them."""
    blocks = [(position, module) for position, module in enumerate(stage) if isinstance(module, Block)]
    return [b.convolutions[-1] for position, b in blocks if position or b.downsample is not None]


def _skip_dropped_frames(net: ResNet) -> None:
    if isinstance(net.maxpool, MaxPool) and isinstance(net.conv1, Conv3d) and net.maxpool.stride_t > 1:
        stride_t, *pixels = net.conv1.stride
        net.conv1.stride = (stride_t * net.maxpool.stride_t, *pixels)
        net.maxpool.stride_t = 1
