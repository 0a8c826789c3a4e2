"""Non-local blocks (Wang et al., arXiv:1711.07971): self-attention over all positions of a clip."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.models.convolution import Conv3d
from mmaction_lite.models.resnet import Block, ResNet, Stage

Mode = Literal["dot_product", "embedded_gaussian", "gaussian"]


class NonLocal(nn.Module):
    """x + BN(W · attention(x)), with keys and values subsampled by 2×2 max pooling (section 3.3).

    Args:
        channels: of input and output; the embeddings have half as many.
        mode: similarity of two positions (section 3.2). "dot_product": dot product of the embeddings, divided
            by the number of positions. "embedded_gaussian": softmax of that product. "gaussian": softmax of
            the dot product of the input, without embeddings.
    """

    conv_norm_pairs = (("out", "bn"),)

    def __init__(self, channels: int, mode: Mode) -> None:
        super().__init__()
        inner = channels // 2
        self.mode = mode
        self.g = Conv3d(channels, inner, (1, 1), bias=True)
        self.theta = self.phi = None
        if mode != "gaussian":
            self.theta = Conv3d(channels, inner, (1, 1), bias=True)
            self.phi = Conv3d(channels, inner, (1, 1), bias=True)
        self.out = Conv3d(inner, channels, (1, 1))
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)  # the block starts as the identity (section 3.3)

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map frames (B·T, C, H, W) to the same shape."""
        theta = x if self.theta is None else self.theta(x, batch_size)
        phi = x if self.phi is None else self.phi(x, batch_size)
        query = _positions(theta, batch_size)
        key, value = (
            _positions(functional.max_pool2d(y, 2), batch_size) for y in (phi, self.g(x, batch_size))
        )
        if self.mode == "dot_product":
            # (query · keyᵀ) · value, multiplied from the right to avoid a matrix of positions × positions.
            attended = query @ (key.transpose(1, 2) @ value / key.shape[1])
        else:
            # One head: exporters to ONNX know this operator with a dimension of heads only.
            query, key, value = query[:, None], key[:, None], value[:, None]
            attended = functional.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]
        attended = attended.flatten(0, 1).unflatten(0, (x.shape[0], *x.shape[2:])).permute(0, 3, 1, 2)
        return x + self.bn(self.out(attended, batch_size))


def _positions(x: Tensor, batch_size: int) -> Tensor:
    """Map (B·T, C, H, W) to (B, T·H·W, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (batch_size, -1)).flatten(1, 2)


def add_non_local(backbone: ResNet, places: Mapping[int, Collection[int]], mode: Mode) -> None:
    """Insert non-local blocks into the stages of a ResNet, in place.

    Args:
        backbone: the ResNet.
        places: for each stage (1–4) the indices of the blocks that a non-local block follows.
        mode: see `NonLocal`.
    """
    for stage, blocks in places.items():
        modules = OrderedDict()
        for name, module in backbone.get_submodule(f"layer{stage}").named_children():
            modules[name] = module
            if isinstance(module, Block) and int(name) in blocks:
                modules[f"non_local{name}"] = NonLocal(backbone.channels[stage], mode)
        setattr(backbone, f"layer{stage}", Stage(modules))
