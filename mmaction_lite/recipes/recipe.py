"""What a recipe is: everything that makes a number, in one frozen value."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pprint import pformat
from typing import Annotated, Any, Literal

from torch import nn

from mmaction_lite.data.loading.batch_plan import Multigrid
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.protocol import Average, Protocol
from mmaction_lite.data.views.samplers import DenseClips, PySlowFastClips
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.device import CompileMode, Precision
from mmaction_lite.errors import UserError
from mmaction_lite.optim import BatchNormMode, Optimizer, Schedule
from mmaction_lite.settings import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    above,
    argument_hints,
    at_least,
    at_most,
    below,
    check_fields,
    check_value,
)
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.task import Task


class Build:
    """A builder with its arguments: `Build(tsm_r50, dropout=0.5)(num_classes=400)` is a network.

    Unlike `functools.partial` it compares by value, prints the same on every machine, and refuses an
    unknown argument when the recipe is read, not when it is built.
    """

    def __init__(self, builder: Callable[..., nn.Module], **arguments: Any):
        inspect.signature(builder).bind_partial(**arguments)
        hints = argument_hints(builder)
        for name, value in arguments.items():
            check_value(value, hints.get(name, Any), f"{builder.__name__}: {name}")
        self.builder = builder
        self.arguments = arguments

    def __call__(self, **arguments: Any) -> nn.Module:
        """Build; `arguments` come on top of the stored ones."""
        return self.builder(**self.arguments | arguments)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Build):
            return NotImplemented
        return (self.builder, self.arguments) == (other.builder, other.arguments)

    def __hash__(self) -> int:
        return hash((self.builder, *sorted(self.arguments)))

    def __repr__(self) -> str:
        arguments = "".join(f", {name}={value!r}" for name, value in self.arguments.items())
        return f"Build({self.builder.__name__}{arguments})"


@dataclass(frozen=True, kw_only=True)
class Reported:
    """The published result of a recipe, in percent, and where it is published; some publish no top-5."""

    top1: Annotated[float, at_least(0), at_most(100)]
    top5: Annotated[float, at_least(0), at_most(100)] | None = None
    source: str

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training and its protocols.

    Args:
        model: the network.
        variant: a word that the name has behind the network's.
        dataset: name of the data set the recipe is for; the data itself is an argument of the run.
        train: random views of one training draw.
        val: views of the validation after every `val_every` epochs.
        test: views of the published number.
        optimizer: its lr belongs to `batch_size`.
        schedule: the lr's factor over the epochs.
        epochs: how often the training split is seen.
        batch_size: clips in the loss of one step, over all devices.
        multigrid: batches of other shapes, epoch by epoch; None for `batch_size` clips of `train` in all.
        modality: what the pixels are.
        normalize: pixels to inputs.
        average: see `Protocol`; of `val` and `test`.
        window: see `Protocol`; of `val` and `test`.
        task: the kind of labels: `SingleLabel()`, `MultiLabel()` …; owns loss and metrics.
        label_smoothing: share of the target spread over all classes.
        class_weights: of the loss's terms, in the order of the classes; "balanced" makes all classes
            equally important.
        class_balance: 0 draws every clip once an epoch, 1 every class equally often; see
            `Samples.draw_weights`.
        mixing: mixup and cutmix of a batch; None for neither.
        precision: of the network's arithmetic in training; weights stay float32. "float16" needs a GPU, and
            scales the loss; "bfloat16" is slow on processors without it.
        clips_per_device: clips that enter the network together; more are taken in parts whose gradients
            add up. Batch normalisation sees one part at a time. None takes all at once. Of the smaller clips
            of `multigrid` as many more enter together as a batch has more of them.
        norm_clips: batch normalisation takes the statistics of so many clips by themselves, where more enter
            the network together; k times as many where the short cycle of `multigrid` makes a batch k times
            larger. None for those of all that enter together.
        recompute: keep only what enters each block of a network, and make the rest again in the backward
            pass: a third more time, a fraction of the memory, the same numbers.
        compile: `torch.compile` of the network, in one of its modes.
        batch_norm: "train"; "sync": statistics over the clips of all GPUs; "frozen": running statistics stay;
            "partial": all but the first normalisation stay as they are, weights included.
        precise_bn_clips: before a validation, running statistics are measured anew on so many training clips.
        freeze: names of modules, or prefixes of names, whose weights and running statistics do not change; or
            the number of layers from the stem, see `optim.freeze`.
        ema_decay: validate and keep an exponential average of the weights, of which each step leaves this
            share; None for the weights themselves.
        max_grad_norm: gradients are scaled down to this L2 norm; None leaves them.
        val_every: epochs between validations; the last epoch is always validated.
        patience: the training ends after so many validations in a row without a better one; None goes on.
        starts_from: weights that the published result starts from.
        reported: the published result.
        modified: what `--set` changed, as given, in alphabetical order.
    """

    model: Build
    dataset: str
    train: TrainViews
    val: TestViews
    test: TestViews
    optimizer: Optimizer
    schedule: Schedule
    epochs: PositiveInt
    batch_size: PositiveInt
    multigrid: Multigrid | None = None
    modality: str = "rgb"
    variant: str = ""
    normalize: Normalize = field(default_factory=Normalize)
    average: Average = "probability"
    window: PositiveInt | None = None
    task: Task = field(default_factory=SingleLabel)
    label_smoothing: Annotated[float, at_least(0), below(1)] = 0.0
    class_weights: Literal["balanced"] | tuple[NonNegativeFloat, ...] | None = None
    class_balance: Annotated[float, at_least(0), at_most(1)] = 0.0
    mixing: Mixing | None = None
    precision: Precision = "float32"
    clips_per_device: PositiveInt | None = None
    norm_clips: PositiveInt | None = None
    recompute: bool = False
    compile: CompileMode | None = None
    batch_norm: BatchNormMode = "train"
    precise_bn_clips: NonNegativeInt = 0
    freeze: tuple[str, ...] | NonNegativeInt = ()
    ema_decay: Annotated[float, "a number such as 0.999", above(0), below(1)] | None = None
    max_grad_norm: PositiveFloat | None = None
    val_every: PositiveInt = 1
    patience: PositiveInt | None = None
    starts_from: str | None = None
    reported: Reported | None = None
    modified: tuple[str, ...] = ()

    def __post_init__(self):
        if inspect.isroutine(self.model):
            name = self.model.__name__
            raise UserError(f"Recipe: model is {name}; expected a Build. Write model=Build({name})")
        check_fields(self)
        if self.multigrid is not None:
            self.multigrid.check(self.train, self.epochs)
        if self.norm_clips is not None and self.batch_norm == "sync":
            raise UserError("norm_clips and batch_norm sync exclude each other; leave one of them out")
        if self.recompute and self.compile is not None:
            raise UserError(
                "recompute and compile exclude each other: a compiler chooses itself what to keep"
            )

    @property
    def val_protocol(self) -> Protocol:
        """The protocol of the validations during training."""
        return self._protocol(self.val)

    @property
    def test_protocol(self) -> Protocol:
        """The protocol of tests and predictions."""
        return self._protocol(self.test)

    def _protocol(self, views: TestViews) -> Protocol:
        return Protocol(views=views, normalize=self.normalize, average=self.average, window=self.window)

    @property
    def name(self) -> str:
        """The field's name for it: model, clip_len x interval x clips, epochs, data set, modality.

        SlowFast is named after its slow pathway, which the builder's name says: of a clip 32x2 every
        eighth frame is 4x16.
        """
        model, clips = self.model.builder.__name__, self.train.clips
        slow = re.fullmatch(r"(.+)_(\d+)x\d+", model)
        if slow and isinstance(clips, DenseClips | PySlowFastClips):
            model, alpha = slow[1], clips.clip_len // int(slow[2])
            clips = replace(clips, clip_len=int(slow[2]), frame_interval=clips.frame_interval * alpha)
        model += f"_{self.variant}" * bool(self.variant)
        return f"{model}_{clips}_{self.epochs}e_{self.dataset}_{self.modality}"

    def __str__(self) -> str:
        """The full recipe over several lines, the same on every machine, so that two can be compared."""
        return pformat(self, width=100)
