"""Batch normalisation in groups: the speed of a large batch with the statistics of a small one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError


class SubBatchNorm2d(nn.BatchNorm2d):
    """Normalises equal parts of a training batch each by itself (Hoffer et al. 2017, arXiv:1705.08741).

    `groups` is their number, 1 but for `in_groups`. The same numbers as from one part after the other,
    running statistics included, and the same names of parameters and statistics.
    """

    groups = 1

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W); N is a multiple of `groups`."""
        if not self.training or self.groups == 1:
            return super().forward(input)
        normalise = super().forward
        return torch.cat([normalise(part) for part in input.chunk(self.groups)])


def split_batch_norm(model: nn.Module) -> None:
    """Make every `BatchNorm2d` of a network one of `SubBatchNorm2d`, in place.

    Raises:
        UserError: it has none.
    """
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    if not norms:
        raise UserError(f"norm_clips: {type(model).__name__} has no BatchNorm2d; leave it off")
    for norm in norms:
        norm.__class__ = SubBatchNorm2d  # nothing else differs, and whoever holds the module keeps it


@contextmanager
def in_groups(norms: Sequence[SubBatchNorm2d], batch_size: int, fewest: int) -> Iterator[None]:
    """Normalise a batch of `batch_size` in as many equal groups as have at least `fewest` clips."""
    groups = next((number for number in range(batch_size // fewest, 1, -1) if batch_size % number == 0), 1)
    for norm in norms:
        norm.groups = groups
    try:
        yield
    finally:
        for norm in norms:
            norm.groups = 1
