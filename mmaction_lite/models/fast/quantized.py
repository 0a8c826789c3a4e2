"""Static post-training quantization to 8 bits: calibration of activations and conversion of networks.

Stems and residual blocks are quantized and pass uint8 activations to each other. Attention, lateral
connections and the classifier stay in float32.
"""

import copy
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
SAMPLES = 1 << 13  # values kept of each tensor and batch
# Relative difference of logits; published networks differ by 0.4 to 6 %.
MAX_DIFFERENCE = 0.15
CLIPS = [n / 20 for n in range(6, 21)]  # candidate clipping thresholds, relative to the largest value


class Range:
    """The values of one activation tensor over several batches."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.samples: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        """Record a tensor (N, C, H, W), channels-last."""
        self.low = min(self.low, float(x.min()))
        self.high = max(self.high, float(x.max()))
        stride = x.numel() // SAMPLES + 1
        while math.gcd(stride, x.shape[1]) > 1:  # otherwise only some channels are sampled
            stride += 1
        self.samples.append(x.permute(0, 2, 3, 1).reshape(-1)[::stride].clone())

    def scale(self) -> Scale:
        """Return the scale with the least mean squared error; it may clip rare large values."""
        values = torch.cat(self.samples)
        largest = max(-self.low, self.high)
        ranges = [(max(self.low, -clip * largest), min(self.high, clip * largest)) for clip in CLIPS]
        scales = [_scale_between(*each) for each in ranges]
        errors = [(each.dequantize(each.quantize(values)) - values).square().mean() for each in scales]
        return scales[int(torch.stack(errors).argmin())]


class Quantize(nn.Module):
    """Conversion from float32 to uint8 between two modules of a stage, or back if `back`."""

    def __init__(self, scale: Scale, *, back: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.back = back

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to the same shape."""
        return self.scale.dequantize(x) if self.back else self.scale.quantize(x)


def can_quantize(model: nn.Module) -> bool:
    """Whether a model has a network to quantize, and quantized convolutions work here."""
    return has_int8() and any(type(module) is ResNet for module in model.modules())


@torch.no_grad()
def quantize_for_inference(model: Model, clips: Iterable[Tensor]) -> Model:
    """Return a copy as from `optimize_for_inference`, for CPUs, with stems and residual blocks in 8 bits.

    Args:
        model: a `Recognizer` in float32 on the CPU.
        clips: batches (B, 3, T, H, W) of normalized clips, from which the ranges of activations are measured:
            a few dozen clips like those to classify, without labels.

    Raises:
        UserError: quantized convolutions do not work here; the model has no network to quantize, is on
            another device or in another dtype, or is optimized already; `clips` is empty; the logits of the
            first batch differ from those in float32 by more than `MAX_DIFFERENCE`.
    """
    check_int8_support()
    if not any(type(module) is ResNet for module in model.modules()):
        raise UserError(
            f"int8: {type(model).__name__} contains no ResNet of mmaction_lite, the only network that can be "
            "quantized. Run it without int8"
        )
    if is_optimized(model):
        raise UserError("int8: the model is optimized already; expected one that load returns. Load it again")
    for parameter in model.parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            raise UserError(
                f"int8: the model is on {parameter.device} in {parameter.dtype}; "
                "expected cpu and torch.float32. Call model.cpu().float()"
            )
    model = optimize_for_inference(model)
    backbone = getattr(model, "backbone", None) if isinstance(model, Recognizer) else None
    nets = [net for net in model.modules() if isinstance(net, ResNet) and _has_fused_stem(net)]
    first: list[tuple[Tensor, Tensor]] = []  # a batch of clips with its logits in float32
    inputs, outputs = _measure_ranges(model, clips, first)
    for net in nets:
        # Elsewhere, as in SlowFast, other modules read the outputs of stages and expect float32.
        _convert(net, net is backbone, inputs, outputs)
    batch, expected = first[0]
    # A copy, because a convolution packs its weight for the shape of its first input.
    difference = float((copy.deepcopy(model)(batch) - expected).norm() / expected.norm().clamp_min(1e-9))
    if not difference <= MAX_DIFFERENCE:
        raise UserError(
            f"int8: the logits of the first calibration clips differ by {difference:.0%} from those in "
            f"float32; expected at most {MAX_DIFFERENCE:.0%}. Run without int8"
        )
    return model


Ranges = dict[nn.Module, Range]


def _has_fused_stem(net: ResNet) -> bool:
    return type(net) is ResNet and isinstance(net.relu, nn.Identity)


def _measure_ranges(
    model: nn.Module, clips: Iterable[Tensor], first_batch: list[tuple[Tensor, Tensor]]
) -> tuple[Ranges, Ranges]:
    """Return the ranges of inputs of stems and blocks, by their first convolution, and of all outputs.

    The first batch and its logits are appended to `first_batch`.
    """
    inputs: Ranges = {}
    outputs: Ranges = {}

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs.setdefault(module, Range()).add(arguments[0])

    def after(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs.setdefault(module, Range()).add(output)

    convolutions = [module for module in model.modules() if isinstance(module, FusedConv2d | FusedConv3d)]
    hooks = [conv.register_forward_hook(after) for conv in convolutions]
    for module in model.modules():
        first = module.conv1 if isinstance(module, ResNet) and _has_fused_stem(module) else None
        first = module.convolutions[0] if isinstance(module, FusedBlock) else first
        if first is not None:
            hooks.append(_convolutions(first)[0].register_forward_pre_hook(before))
    for batch in clips:
        logits = model(batch)
        if not first_batch:
            first_batch.append((batch, logits))
    for hook in hooks:
        hook.remove()
    if not outputs:
        raise UserError("int8: clips is empty; expected at least one batch of clips for calibration")
    return inputs, outputs


def _convert(net: ResNet, is_alone: bool, inputs: Ranges, outputs: Ranges) -> None:
    """Quantize the stem and the blocks of a network; if it `is_alone`, also the tensors between stages."""
    *inner, last = _convolutions(net.conv1)
    scale: Scale | None = inputs[(*inner, last)[0]].scale()
    for conv in inner:
        scale = _quantize_convolution(conv, scale, outputs[conv].scale(), None)
    pool = net.maxpool
    stays = is_alone and (pool is None or (isinstance(pool, MaxPool) and pool.padding == 1))
    scale = _quantize_convolution(last, scale, outputs[last].scale() if stays else None, None)
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
            shortcut = _quantize_convolution(conv, shortcut, outputs[conv].scale(), None)
    *inner, last = [conv for module in block.convolutions for conv in _convolutions(module)]
    scale: Scale | None = source
    for conv in inner:
        scale = _quantize_convolution(conv, scale, outputs[conv].scale(), None)
    target = outputs[last].scale()
    _quantize_convolution(last, scale, target, shortcut)
    return target


def _quantize_convolution(
    conv: FusedConv, source: Scale | None, target: Scale | None, shortcut: Scale | None
) -> Scale | None:
    """Quantize a convolution; return the scale of its output."""
    assert source is not None
    conv.epilogue = Int8Epilogue(conv.epilogue.relu, source, target, shortcut)
    return target


def _convolutions(module: nn.Module) -> tuple[FusedConv, ...]:
    """Return the one or two convolutions of a unit, in the order in which they run."""
    if isinstance(module, FusedConv2plus1d):
        modules: tuple[nn.Module, ...] = module.in_order
    else:
        modules = (module,)
    return tuple(each for each in modules if isinstance(each, FusedConv2d | FusedConv3d))


def _scale_between(low: float, high: float) -> Scale:
    step = max(high - low, 1e-6) / 255
    return Scale(step, round(-low / step))
