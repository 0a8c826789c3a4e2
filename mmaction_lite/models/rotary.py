"""Rotary positions of video tokens: the two published forms of V-JEPA 2 and V-JEPA 2.1.

Rotary positions turn pairs of channels of q and k by angles that are proportional to the position of the
token (Su et al., arXiv:2104.09864). The channels of a head are divided into three equal parts for time, row
and column; the last channels that do not fill a part stay as they are: with 64 channels, 20 for each axis and
4 without position. Channels 2i and 2i + 1 of a part form a pair.

The two forms differ in the angles, and weights of one form load into the other without an error:

* `tiled_rotation`, V-JEPA 2: the angles of a part are θ0 … θ9, θ0 … θ9, so the two channels of a pair get
  different angles. This is no rotation. The published weights are trained with it.
* `interleaved_rotation`, V-JEPA 2.1: the angles are θ0, θ0, θ1, θ1, …, θ9, θ9. Rows and columns are scaled to
  the range of the grid of the pre-training, 0 … 15.
"""

import torch
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.models.vit import Rotate

PRETRAINING_SIDE = 16  # tokens along height and width in the pre-training of V-JEPA 2.1, 256 pixels


def tiled_rotation(grid: tuple[int, int, int], head_dim: int, like: Tensor) -> Rotate:
    """Return the rotary positions of V-JEPA 2, a function of q or k.

    Positions are the indices of the tokens along each axis, from 0.

    Source: `rotate_queries_or_keys` in src/models/utils/modules.py of facebookresearch/vjepa2.

    Args:
        grid: tokens along time, height and width.
        head_dim: channels of a head, an even number of at least 6.
        like: a tensor of the device of q and k. If it has float64, so have the angles; otherwise float32.

    Raises:
        UserError: `head_dim` is odd or too small.
    """
    positions = [torch.arange(n, device=like.device, dtype=_precision(like)) for n in grid]
    angles = [_angles(position, head_dim).repeat(1, 2) for position in positions]
    return _rotation(angles, head_dim)


def interleaved_rotation(grid: tuple[int, int, int], head_dim: int, like: Tensor) -> Rotate:
    """Return the rotary positions of V-JEPA 2.1, a function of q or k.

    Positions along time are indices. Those along height and width are indices times 15 / (n - 1) for n
    tokens, and cover 0 … 15 for frames of any size.

    Source: app/vjepa_2_1/models of facebookresearch/vjepa2, with `interpolate_rope`.

    Args:
        grid: tokens along time, height and width.
        head_dim: channels of a head, an even number of at least 6.
        like: a tensor of the device of q and k. If it has float64, so have the angles; otherwise float32.

    Raises:
        UserError: `head_dim` is odd or too small.
    """
    positions = [torch.arange(n, device=like.device, dtype=_precision(like)) for n in grid]
    for axis in (1, 2):
        positions[axis] = positions[axis] * ((PRETRAINING_SIDE - 1) / max(grid[axis] - 1, 1))
    angles = [_angles(position, head_dim).repeat_interleave(2, 1) for position in positions]
    return _rotation(angles, head_dim)


def part_of_head(head_dim: int) -> int:
    """Return the channels of a head that encode one axis, an even number.

    Raises:
        UserError: `head_dim` is odd or too small.
    """
    part = head_dim // 3 // 2 * 2
    if part == 0 or head_dim % 2:
        raise UserError(
            f"rotary positions: a head has {head_dim} channels; expected an even number of at least 6. "
            "Change width or heads: a head has width / heads channels"
        )
    return part


def _precision(like: Tensor) -> torch.dtype:
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def _angles(positions: Tensor, head_dim: int) -> Tensor:
    """Return the angles (n, pairs) of positions (n,), one for each pair of channels of an axis."""
    pairs = part_of_head(head_dim) // 2
    exponents = torch.arange(pairs, device=positions.device, dtype=positions.dtype) / pairs
    return positions[:, None] * (1.0 / 10000**exponents)


def _rotation(angles: list[Tensor], head_dim: int) -> Rotate:
    """Return the function that turns q or k (N, heads, tokens, head_dim) by angles (n, part) of each axis."""
    shape = [len(of_axis) for of_axis in angles]
    parts = [
        of_axis.reshape([-1 if axis == own else 1 for axis in range(3)] + [of_axis.shape[1]]).expand(
            *shape, -1
        )
        for own, of_axis in enumerate(angles)
    ]
    rest = head_dim - sum(part.shape[-1] for part in parts)
    table = torch.cat([*parts, parts[0].new_zeros(*shape, rest)], dim=-1).flatten(0, 2)
    # The companion of (y0, y1) is (-y1, y0). Its signs are part of the sines.
    signs = torch.tensor([-1.0, 1.0], device=table.device, dtype=table.dtype).repeat(head_dim // 2)
    cosines, sines = table.cos(), table.sin() * signs

    def rotate(x: Tensor) -> Tensor:
        companion = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        return x * cosines.to(x.dtype) + companion * sines.to(x.dtype)

    return rotate
