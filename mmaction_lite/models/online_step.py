"""One step of an online TSM: the logits of a frame, from the frame and cached features of the frame before.

An online TSM (`models.tsm`) replaces some channels of a frame by those of the frame before, in front of the
first convolution of its blocks. These channels are the whole state of a stream. `OnlineStep` takes and
returns them as tensors, so that the caller, or the caller of an exported program, holds the state of its
streams.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.convolution import Conv2d
from mmaction_lite.models.recognizer import Recognizer


class OnlineStep(nn.Module):
    """Map one frame of each of B streams and cached features to logits and new features.

    The step shares the parameters and buffers of `model`. It keeps no state between calls, so several streams
    may use one object, from one thread at a time. `torch.export` and `torch.compile` accept it.

    Args:
        model: an online TSM, in evaluation mode; also a copy from `optimize_for_inference`,
            which is faster.

    Attributes:
        network: `model`, with convolutions that receive cached features.
        num_caches: number of cached tensors, one for each shifted convolution.

    Raises:
        UserError: the model is no online TSM, so its frames depend on other frames than the one before.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        _check_is_online(model)
        tensors = [*model.parameters(), *model.buffers()]
        self.network = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()
        names = [name for name, module in self.network.named_modules() if _shifts(module)]
        state = _State()
        for number, name in enumerate(names):
            conv = self.network.get_submodule(name)
            assert isinstance(conv, Conv2d)
            self.network.set_submodule(name, _CachedShift(conv, number, state))
        self.num_caches = len(names)
        self._state = state
        self.eval()

    def forward(self, frames: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Classify one frame of each stream.

        Args:
            frames: normalized, (B, 3, H, W).
            caches: tensors that the call for the frames before returned, or `initial_caches`. None at the
                start of a stream, where zeros replace the features of the frame before, as in a clip.

        Returns:
            logits (B, num_classes) of these frames, then the new caches, (B, channels, h, w) each.

        Raises:
            UserError: the number of caches differs from that of shifted convolutions.
        """
        if caches and len(caches) != self.num_caches:
            raise UserError(
                f"OnlineStep: {len(caches)} caches; expected {self.num_caches}, one for each shifted "
                "convolution. Pass all caches of the last call, or none"
            )
        state = self._state
        state.before, state.received = caches, []
        logits = self.network(frames.unsqueeze(2))
        received = state.received
        state.before, state.received = (), []
        return logits, *received

    @torch.no_grad()
    def initial_caches(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return the caches at the start of a stream, for frames of the shape of `frames`, (B, 3, H, W)."""
        _, *caches = self(frames)
        return tuple(map(torch.zeros_like, caches))


class _CachedShift(nn.Module):
    """A shifted convolution for single frames, which receives the shifted channels from the caller."""

    def __init__(self, conv: Conv2d, number: int, state: "_State") -> None:
        super().__init__()
        self.share = conv.share
        self.number = number
        self.state = state
        self.conv = conv
        conv.share = 0  # this module shifts

    def forward(self, x: Tensor, batch_size: int, *other: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        before = self.state.before
        current = x[:, : self.share]
        # A copy: later layers may overwrite x, and a view would keep all of it in memory.
        self.state.received.append(current.clone(memory_format=torch.channels_last))
        earlier = before[self.number] if before else torch.zeros_like(current)
        x = torch.cat([earlier, x[:, self.share :]], 1).contiguous(memory_format=torch.channels_last)
        return self.conv(x, batch_size, *other)


@dataclass
class _State:
    """Caches during one call; the modules between a step and its convolutions pass no further arguments.

    Attributes:
        before: of the frame before; empty at the start of a stream.
        received: of the current frame, so far.
    """

    before: Sequence[Tensor] = ()
    received: list[Tensor] = field(default_factory=list)


def _shifts(module: nn.Module) -> bool:
    return isinstance(module, Conv2d) and module.share > 0


def _check_is_online(model: nn.Module) -> None:
    shifted = [module for module in model.modules() if isinstance(module, Conv2d) and module.share > 0]
    if not isinstance(model, Recognizer) or not shifted or not all(conv.causal for conv in shifted):
        reason = (
            "depends on later frames"
            if any(not conv.causal for conv in shifted)
            else "is no online TSM of mmaction_lite"
        )
        raise UserError(
            f"{type(model).__name__}: {reason}; expected a network of tsm_online_r10, tsm_online_r50 or "
            "tsm_online_mobilenetv2. Train one, or classify windows of the video with `timeline`"
        )
