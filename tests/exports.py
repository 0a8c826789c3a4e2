"""Networks with cards for the tests of exported files."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmaction_lite import models
from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.task import Task
from mmaction_lite.weights.card import ModelCard, load, save_weights


def with_statistics(model: nn.Module) -> nn.Module:
    """Replace the normalizations, which initialize blocks to the identity, by those of a trained network."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
    return model.eval()


def small_protocol(frames: int = 4, size: tuple[int, int] = (20, 28), **settings: Any) -> Protocol:
    views = TestViews(clips=SegmentFrames(num_segments=frames), short_side=24, crop=CenterCrop(size=size))
    return Protocol(views=views, **settings)


def carded(
    builder: str,
    protocol: Protocol,
    *,
    task: Task | None = None,
    classes: tuple[str, ...] = ("up", "down"),
    **arguments: Any,
) -> Any:
    """Return a network in evaluation mode, with a card, as `load` does."""
    torch.manual_seed(0)
    task = (task or SingleLabel()).for_classes(classes)
    arguments["num_classes"] = task.num_logits(len(classes))
    model = with_statistics(getattr(models, builder)(**arguments))
    model.card = ModelCard(  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        builder=builder,
        arguments=arguments,
        classes=classes,
        val=protocol,
        test=protocol,
        recipe="test",
        task=task,
    )
    return model


def write_small_weights(path: Path) -> Any:
    """Write the weights of a small TSM for the data set `tiny`, and return the model."""
    model = carded("tsm_r10", small_protocol())
    save_weights(path, model.state_dict(), model.card)
    return load(path)
