"""Tokens of a network: the vectors, one for every position or frame, that a probe classifies."""

from typing import Literal

import torch
from torch import Tensor, nn

from mmaction_lite.models.network import has_method

Pool = Literal["all", "time", "space", "none"]
"""Axes over which the mean is taken: time, space, both ("all") or neither."""

_AXES: dict[Pool, tuple[int, ...]] = {"all": (2, 3, 4), "time": (2,), "space": (3, 4), "none": ()}


def pooled_tokens(model: nn.Module, x: Tensor, pool: Pool = "none", *, frame_code: bool = False) -> Tensor:
    """Return the tokens of clips, averaged over time or space.

    These are `tokens(x)` of a network that defines this method, before its own pooling. Of another network,
    they are the input of its classifier, `features(x)`: one vector for every frame or for the clip.

    Args:
        model: the network.
        x: normalized clips, float (B, C, T, H, W).
        pool: axes over which the mean is taken. Tokens of several layers of a network are averaged
            separately.
        frame_code: add `frame_codes` of the position in time to every token.

    Returns:
        float (B, tokens, D), ordered by time, row and column.
    """
    if not has_method(model, "tokens"):
        found = model.features(x)[:, None, :, None, None]  # pyright: ignore[reportCallIssue]
    else:
        grid = model.grid(*x.shape[2:])  # pyright: ignore[reportCallIssue]
        found = model.tokens(x).unflatten(1, (-1, *grid))  # pyright: ignore[reportCallIssue]
    # (B, layers, t, h, w, D)
    if axes := _AXES[pool]:
        found = found.mean(axes, keepdim=True)
    if frame_code:
        found = found + frame_codes(found.shape[2], found.shape[-1]).to(found)[:, None, None]
    return found.flatten(1, 4)


def frame_codes(frames: int, width: int) -> Tensor:
    """Return sine and cosine codes of frame numbers, float32 (frames, width).

    Source: Vaswani et al., arXiv:1706.03762, section 3.5, with sines before cosines.
    """
    half = -(-width // 2)
    angles = torch.arange(frames)[:, None] / 10000 ** (torch.arange(half) / half)
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]
