"""Sub-batch normalization: a large batch with the batch statistics of a small one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError


class SubBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over equal parts of a batch (ghost batches; Hoffer et al. 2017, arXiv:1705.08741).

    Output and running statistics are those of one forward pass per part. The state dict is that of
    `nn.BatchNorm2d`.

    Attributes:
        groups: number of parts; set by `in_groups`, otherwise 1.
    """

    groups = 1

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape; N is a multiple of `groups`."""
        if not self.training or self.groups == 1:
            return super().forward(input)
        normalize = super().forward
        return torch.cat([normalize(part) for part in input.chunk(self.groups)])


def split_batch_norm(model: nn.Module) -> None:
    """Convert every `nn.BatchNorm2d` of a network to `SubBatchNorm2d`, in place.

    Raises:
        UserError: the network has none.
    """
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    if not norms:
        raise UserError(f"norm_clips: {type(model).__name__} has no BatchNorm2d; set norm_clips=none")
    for norm in norms:
        norm.__class__ = SubBatchNorm2d  # in place: other objects may hold the module


@contextmanager
def in_groups(norms: Sequence[SubBatchNorm2d], batch_size: int, fewest: int) -> Iterator[None]:
    """Return a context in which `norms` normalize a batch in equal groups.

    Args:
        norms: the modules.
        batch_size: clips in the batch.
        fewest: minimum of clips in a group; the batch is divided into as many groups as possible.
    """
    groups = next((number for number in range(batch_size // fewest, 1, -1) if batch_size % number == 0), 1)
    for norm in norms:
        norm.groups = groups
    try:
        yield
    finally:
        for norm in norms:
            norm.groups = 1
