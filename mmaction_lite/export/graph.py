"""The exported graph: from frames as decoders write them to probabilities."""

import torch
from torch import Tensor, nn

from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.export.image_convolution import use_image_convolutions
from mmaction_lite.models.fast.inference import fold_normalizations
from mmaction_lite.tasks.task import Task
from mmaction_lite.weights.card import card_of


class ScoredFrames(nn.Module):
    """Normalization of the pixels, the network, and the probabilities of the task.

    Args:
        model: maps (B, 3, T, H, W) to logits.
        protocol: its normalization and window become part of the graph.
        task: converts logits to probabilities.
        dtype: of the network: float32 or float16.
    """

    def __init__(
        self, model: nn.Module, protocol: Protocol, task: Task, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.task = task
        self.dtype = dtype
        self.average = protocol.average_logits
        self.options = {} if protocol.window is None else {"window": protocol.window}
        self.mean: Tensor
        self.scale: Tensor
        # Of a whole row of pixels: runtimes broadcast long vectors faster than three numbers.
        width = protocol.views.view_shape[2]
        self.register_buffer("mean", torch.tensor(protocol.normalize.mean).repeat(width))
        self.register_buffer("scale", (1 / torch.tensor(protocol.normalize.std)).repeat(width))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames, uint8 (B, T, H, W, 3), to probabilities and logits.

        Returns:
            Probabilities (B, K) and logits (B, K), float32. With a window in the protocol, the logits are
            (B, num_windows, K), and the probabilities are averaged over the windows.
        """
        rows = (frames.flatten(3).float() - self.mean) * self.scale
        x = rows.unflatten(3, frames.shape[3:]).permute(0, 4, 1, 2, 3)
        logits = self.model(x.to(self.dtype), **self.options).float()
        views = logits if self.options else logits.unsqueeze(1)
        return self.average(views, self.task.probabilities), logits


def exportable_graph(model: nn.Module, dtype: torch.dtype = torch.float32) -> ScoredFrames:
    """Return the graph of a copy of a model with a card, on the CPU, with folded normalization layers."""
    card = card_of(model)
    model = fold_normalizations(model).cpu()
    use_image_convolutions(model)
    return ScoredFrames(model, card.test, card.task, dtype).eval()


def example_frames(shape: tuple[int, int, int, int], batch_size: int, seed: int = 0) -> Tensor:
    """Return clips to compare two forms of a model on, uint8 (B, T, H, W, 3).

    In turn: a bright bar that moves over a gradient, random pixels, and black frames.

    Args:
        shape: (T, H, W, 3).
        batch_size: B.
        seed: of the random pixels.
    """
    frames, height, width, _ = shape
    gradient = torch.linspace(0, 200, width).expand(frames, height, width)
    columns, times = torch.arange(width), torch.arange(frames).view(-1, 1, 1)
    is_bar = (columns - times * width / frames).abs() < max(width / 8, 1)
    bar = torch.where(is_bar, torch.tensor(255.0), gradient)
    colors = torch.tensor([1.0, 0.7, 0.4])
    generator = torch.Generator().manual_seed(seed)
    kinds = [
        (bar.unsqueeze(3) * colors).to(torch.uint8),
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        torch.zeros(shape, dtype=torch.uint8),
    ]
    return torch.stack([kinds[number % 3] for number in range(batch_size)])
