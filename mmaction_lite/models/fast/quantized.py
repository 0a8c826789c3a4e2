"""Networks that compute in 8 bits: which values occur, and where floats turn into bytes and back.

Stems and residual blocks are converted, and hand bytes to each other. Attention, lateral connections and the
classifier stay in float32.
"""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.fast.fused import FusedBlock, FusedConv, FusedConv2d, FusedConv2plus1d, FusedConv3d
from mmaction_lite.models.fast.inference import is_optimized, optimize_for_inference
from mmaction_lite.models.fast.int8 import Int8Epilogue, Scale, check_int8_support
from mmaction_lite.models.fast.operators import has_int8
from mmaction_lite.models.inflated import PairMax
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import MaxPool, ResNet, Stage

Model = TypeVar("Model", bound=nn.Module)
SAMPLES = 1 << 13  # of a tensor and batch
CUTS = [n / 20 for n in range(6, 21)]


class Range:
    """The values that one tensor takes, over several batches."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.samples: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        """Look at (N, C, H, W), channels-last."""
        self.low = min(self.low, float(x.min()))
        self.high = max(self.high, float(x.max()))
        stride = x.numel() // SAMPLES + 1
        while math.gcd(stride, x.shape[1]) > 1:  # else only some channels would get their turn
            stride += 1
        self.samples.append(x.permute(0, 2, 3, 1).reshape(-1)[::stride].clone())

    def scale(self) -> Scale:
        """The one that rounds best: it may cut off rare large values to tell the many small ones apart."""
        values = torch.cat(self.samples)
        most = max(-self.low, self.high)
        scales = [_between(max(self.low, -cut * most), min(self.high, cut * most)) for cut in CUTS]
        errors = [(each.dequantize(each.quantize(values)) - values).square().mean() for each in scales]
        return scales[int(torch.stack(errors).argmin())]


class Quantize(nn.Module):
    """From float32 to uint8 between two modules of a stage, or back."""

    def __init__(self, scale: Scale, *, back: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.back = back

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Keep the shape."""
        return self.scale.dequantize(x) if self.back else self.scale.quantize(x)


def can_quantize(model: nn.Module) -> bool:
    """Whether `quantize_for_inference` finds something to do, and PyTorch can do it."""
    return has_int8() and any(type(module) is ResNet for module in model.modules())


@torch.no_grad()
def quantize_for_inference(model: Model, clips: Iterable[Tensor]) -> Model:
    """A copy as of `optimize_for_inference`, for processors, whose stems and residual blocks use 8 bits.

    Args:
        model: a `Recognizer`, in float32, on a processor.
        clips: batches (B, 3, T, H, W), normalised, that show which values occur: some dozens of clips like
            those it is meant for. Labels are not needed.

    Raises:
        UserError: PyTorch cannot do it here; the model is another, elsewhere or done already; no clip.
    """
    check_int8_support()
    if not any(type(module) is ResNet for module in model.modules()):
        raise UserError(f"int8: no ResNet of mmaction_lite is in this {type(model).__name__}; leave it out")
    if is_optimized(model):
        raise UserError("int8: this network is optimized already; it takes the one that load returned")
    for parameter in model.parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            raise UserError(
                f"int8: the network is on {parameter.device} in {parameter.dtype}; "
                "it takes one on the cpu in torch.float32"
            )
    model = optimize_for_inference(model)
    whole = getattr(model, "backbone", None) if isinstance(model, Recognizer) else None
    nets = [net for net in model.modules() if type(net) is ResNet and isinstance(net.relu, nn.Identity)]
    inputs, outputs = _ranges(model, clips)
    for net in nets:
        # Elsewhere, as in SlowFast, others read what its stages hand over, and expect floats.
        _convert(net, net is whole, inputs, outputs)
    return model


Ranges = dict[nn.Module, Range]


def _ranges(model: nn.Module, clips: Iterable[Tensor]) -> tuple[Ranges, Ranges]:
    """What goes into stems and blocks, by their first convolution, and what comes out of every one."""
    inputs: Ranges = {}
    outputs: Ranges = {}

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs.setdefault(module, Range()).add(arguments[0])

    def after(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs.setdefault(module, Range()).add(output)

    convolutions = [module for module in model.modules() if isinstance(module, FusedConv2d | FusedConv3d)]
    hooks = [conv.register_forward_hook(after) for conv in convolutions]
    for module in model.modules():
        first = module.conv1 if isinstance(module, ResNet) else None
        first = module.convolutions[0] if isinstance(module, FusedBlock) else first
        if first is not None:
            hooks.append(_convolutions(first)[0].register_forward_pre_hook(before))
    for batch in clips:
        model(batch)
    for hook in hooks:
        hook.remove()
    if not outputs:
        raise UserError("int8: no clip to see the range of activations in")
    return inputs, outputs


def _convert(net: ResNet, is_alone: bool, inputs: Ranges, outputs: Ranges) -> None:
    """Stem and blocks of a network; only if it `is_alone` does it hand uint8 from stage to stage."""
    *inner, last = _convolutions(net.conv1)
    scale: Scale | None = inputs[(*inner, last)[0]].scale()
    for conv in inner:
        scale = _end(conv, scale, outputs[conv].scale(), None)
    pool = net.maxpool
    stays = is_alone and (pool is None or (isinstance(pool, MaxPool) and pool.padding == 1))
    scale = _end(last, scale, outputs[last].scale() if stays else None, None)
    for number, stage in enumerate(net.stages, 1):
        assert isinstance(stage, Stage)
        modules: list[nn.Module] = []
        for module in stage:
            if isinstance(module, FusedBlock):
                if scale is None:
                    scale = inputs[_convolutions(module.convolutions[0])[0]].scale()
                    modules.append(Quantize(scale))
                scale = _convert_block(module, scale, outputs)
            elif scale is not None and not isinstance(module, PairMax):
                modules.append(Quantize(scale, back=True))
                scale = None
            modules.append(module)
        if scale is not None and (not is_alone or number == len(net.stages)):
            modules.append(Quantize(scale, back=True))
            scale = None
        net.add_module(f"layer{number}", Stage(*modules))


def _convert_block(block: FusedBlock, source: Scale, outputs: Ranges) -> Scale:
    shortcut: Scale | None = source
    if block.downsample is not None:
        for conv in _convolutions(block.downsample[0]):
            shortcut = _end(conv, shortcut, outputs[conv].scale(), None)
    *inner, last = [conv for module in block.convolutions for conv in _convolutions(module)]
    scale: Scale | None = source
    for conv in inner:
        scale = _end(conv, scale, outputs[conv].scale(), None)
    target = outputs[last].scale()
    _end(last, scale, target, shortcut)
    return target


def _end(conv: FusedConv, source: Scale | None, target: Scale | None, shortcut: Scale | None) -> Scale | None:
    """Let a convolution compute in 8 bits; the scale of its result."""
    assert source is not None
    conv.epilogue = Int8Epilogue(conv.epilogue.relu, source, target, shortcut)
    return target


def _convolutions(module: nn.Module) -> tuple[FusedConv, ...]:
    """The one or two that a unit consists of, in the order in which they run."""
    if isinstance(module, FusedConv2plus1d):
        modules: tuple[nn.Module, ...] = module.in_order
    else:
        modules = (module,)
    return tuple(each for each in modules if isinstance(each, FusedConv2d | FusedConv3d))


def _between(low: float, high: float) -> Scale:
    step = max(high - low, 1e-6) / 255
    return Scale(step, round(-low / step))
