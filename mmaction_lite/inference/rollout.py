"""Attention rollout (Abnar & Zuidema, arXiv:2005.00928, section 3): the share of each token in the output.

With A the attention weights of a block, averaged over the heads, the residual connection makes the block mix
tokens by (A + 1) / 2, with 1 the identity. The product over all blocks says how much each input token
contributes to each output token. The output tokens are weighted as the network pools them: equally, or by the
attention of the pooling. The result does not depend on the class, unlike that of Grad-CAM.

The vector of shares is multiplied by the matrix of one block after the other, from the last to the first, so
only one matrix is in memory.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.inference.map_geometry import cell_positions, resize_cells
from mmaction_lite.models.attentive_pool import CrossAttention
from mmaction_lite.models.network import has_method
from mmaction_lite.models.vit import Attention
from mmaction_lite.weights.exported import check_has_layers

ALL = slice(None)
ROWS = 1024  # rows of an attention matrix that are computed at once


class _Call(NamedTuple):
    """One forward pass of an attention layer, and its inputs."""

    module: Attention | CrossAttention
    inputs: tuple[Any, ...]


def rollout(model: nn.Module, inputs: Tensor) -> np.ndarray:
    """Compute the attention rollout of one clip.

    Args:
        model: a transformer of this package, in evaluation mode.
        inputs: one normalized clip, float (1, C, T, H, W), on the device of the model.

    Returns:
        float32 (T, H, W), at least 0, not normalized.

    Raises:
        UserError: see `check_attention`; or the network pools the tokens of several layers.
    """
    check_attention(model)
    shape = (inputs.shape[2], inputs.shape[3], inputs.shape[4])
    cells = token_shares(model, inputs).reshape(model.grid(*shape))  # pyright: ignore[reportCallIssue]
    return resize_cells(cells, cell_positions(len(cells), shape[0], "center"), shape, "center")


def check_attention(model: nn.Module) -> None:
    """Check that a network has attention layers whose weights can be computed.

    Raises:
        UserError: it has none, or its blocks have different tokens.
    """
    check_has_layers(model, ", or use --method occlusion")
    if has_method(model, "token_map"):
        raise UserError(
            f"{type(model).__name__}: the number or order of tokens differs between blocks; expected a "
            "transformer such as VideoMAE or V-JEPA. Use --method gradcam or --method occlusion"
        )
    if not callable(getattr(model, "grid", None)) or not any(
        isinstance(module, Attention) for module in model.modules()
    ):
        raise UserError(
            f"{type(model).__name__} has no attention layers of this package; expected a transformer such as "
            "VideoMAE or V-JEPA. Use --method gradcam or --method occlusion"
        )


def token_shares(model: nn.Module, inputs: Tensor) -> np.ndarray:
    """Return the share of every input token in the pooled output, float32 (tokens,); the sum is 1.

    Raises:
        UserError: the network pools the tokens of several layers.
    """
    calls: list[_Call] = []

    def note(module: Any, given: tuple[Any, ...]) -> None:
        calls.append(_Call(module, given))

    layers = [module for module in model.modules() if isinstance(module, Attention | CrossAttention)]
    handles = [module.register_forward_pre_hook(note) for module in layers]
    try:
        with torch.no_grad():
            model(inputs)
            shares = torch.ones(0)
            for module, given in reversed(calls):
                if isinstance(module, CrossAttention):
                    shares = attention_weights(module, given)[:, 0]  # of the one query
                    continue
                num_tokens = given[0].shape[:2].numel()
                if not len(shares):
                    shares = given[0].new_full((1, num_tokens), 1 / num_tokens)
                if shares.numel() != num_tokens:
                    raise UserError(
                        f"{type(model).__name__} pools the tokens of several layers, {shares.numel()} for "
                        f"{num_tokens}; expected those of one layer. Use --method occlusion"
                    )
                shares = _through(module, given, shares.reshape(given[0].shape[:2]))
    finally:
        for handle in handles:
            handle.remove()
    return shares.flatten().float().cpu().numpy()


def attention_weights(
    module: Attention | CrossAttention, given: tuple[Any, ...], rows: slice = ALL
) -> Tensor:
    """Return the attention weights of an attention layer, averaged over its heads, (N, rows, tokens).

    Args:
        module: the layer.
        given: arguments of its forward pass.
        rows: the tokens or queries that attend.
    """
    q, k, _ = module.project(*given)
    return (q[:, :, rows] @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3).mean(1)


def _through(module: Attention, given: tuple[Any, ...], shares: Tensor) -> Tensor:
    """Return the shares of the inputs of a block, (N, tokens), from those of its outputs."""
    passed = torch.zeros_like(shares)
    for begin in range(0, shares.shape[1], ROWS):
        rows = slice(begin, begin + ROWS)
        passed += (shares[:, None, rows] @ attention_weights(module, given, rows))[:, 0]
    return (passed + shares) / 2
