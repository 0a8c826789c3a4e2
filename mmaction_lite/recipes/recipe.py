"""The recipe: all settings of one training and its tests, in one frozen dataclass."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
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
from mmaction_lite.models.lora import LoRA
from mmaction_lite.models.probe import PROBES
from mmaction_lite.optim import BatchNormMode, Optimizer, Schedule, Unfreeze
from mmaction_lite.recipes.probe_settings import ProbeSettings
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

# Fields of a recipe that change a network which is trained, or its input clips.
_NOT_FOR_PROBES = (
    *("multigrid", "window", "mixing", "norm_clips", "recompute", "compile", "batch_norm"),
    *("precise_bn_clips", "freeze", "unfreeze", "lora"),
)


class Build:
    """A function that builds a network, and its arguments.

    `Build(tsm_r50, dropout=0.5)(num_classes=400)` returns a network. Unlike `functools.partial`, a `Build`
    compares by value, has the same text on every machine, and checks its arguments when it is constructed.

    Args:
        builder: a function that takes `num_classes` and returns an `nn.Module`.
        **arguments: arguments of `builder`, checked against its type hints.

    Raises:
        TypeError: `builder` has no such argument.
        UserError: the value of an argument does not fit its type hint.
    """

    def __init__(self, builder: Callable[..., nn.Module], **arguments: Any):
        inspect.signature(builder).bind_partial(**arguments)
        hints = argument_hints(builder)
        for name, value in arguments.items():
            check_value(value, hints.get(name, Any), f"{builder.__name__}: {name}")
        self.builder = builder
        self.arguments = arguments

    def __call__(self, **arguments: Any) -> nn.Module:
        """Build the network; `arguments` are added to the stored ones and override them.

        Raises:
            UserError: the builder returns something else than a network.
        """
        model = self.builder(**self.arguments | arguments)
        if not isinstance(model, nn.Module):
            raise UserError(
                f"{self.builder.__name__} returned a {type(model).__name__}; expected an nn.Module. "
                "Return the network from the builder"
            )
        return model

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
    """The published result of a recipe.

    Args:
        top1: top-1 accuracy in percent.
        top5: top-5 accuracy in percent; None if it is not published.
        source: where the result is published.
    """

    top1: Annotated[float, at_least(0), at_most(100)]
    top5: Annotated[float, at_least(0), at_most(100)] | None = None
    source: str

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of one training, of its validations and of its test.

    A variant of a recipe is `dataclasses.replace(recipe, ...)`. On the command line, `--set FIELD=VALUE`
    changes a field.

    Args:
        model: builder of the network.
        dataset: name of the data set; part of the recipe's name. The data itself is an argument of the run.
        train: random training views of a video.
        val: views of the validations during training.
        test: views of the test that the published result belongs to.
        optimizer: optimizer. Its learning rate belongs to `batch_size`; it is not scaled automatically.
        schedule: factor of the learning rate as a function of the epoch.
        epochs: passes over the training split.
        batch_size: clips per optimizer step, over all devices.
        multigrid: shapes and sizes of the batches of a multigrid training. None: every batch has `batch_size`
            clips of the shape of `train`.
        modality: kind of input; part of the recipe's name.
        variant: suffix of the recipe's name, after the network.
        normalize: normalization of pixels.
        average: what is averaged over the views of a video in `val` and `test`: "probability" (after softmax
            or sigmoid) or "score" (logits). See `Protocol`.
        window: side of the windows of the last feature map that are classified separately in `val` and
            `test`; None classifies the whole map. See `Protocol`.
        task: kind of labels, such as `SingleLabel()` or `MultiLabel()`. It defines loss and metrics.
        label_smoothing: share of the target that is spread evenly over all classes.
        class_weights: weight of each class in the loss, in the order of the classes. "balanced" gives all
            classes the same total weight. None: all weights are 1.
        class_balance: between 0 (draw every clip once per epoch) and 1 (draw every class equally often); see
            `Samples.draw_weights`.
        mixing: mixup and cutmix; None disables both.
        precision: data type of the forward and backward pass during training. Weights stay float32. "float16"
            needs a GPU and scales the loss. "bfloat16" is slow on CPUs without support for it.
        clips_per_device: clips per forward pass on each device. Larger batches are split, and gradients are
            accumulated. Batch normalization computes its statistics over one forward pass. None: the whole
            batch in one pass. With `multigrid`, the number grows with the batch where clips are smaller.
        norm_clips: clips per group for the statistics of batch normalization, where a forward pass has more
            (sub-batch normalization). In the short cycle of `multigrid`, a batch that is k times larger has
            groups of k times as many clips. None: statistics over the whole forward pass.
        recompute: keep only the inputs of each block of the network, and recompute activations in the
            backward pass. Takes about a third more time and much less memory; the gradients are identical.
        compile: mode of `torch.compile`; None does not compile.
        batch_norm: "train": statistics over the clips of each device. "sync": statistics over all GPUs.
            "frozen": use the running statistics of the initial weights, train scale and bias. "partial":
            freeze statistics, scale and bias of all normalization layers but the first.
        precise_bn_clips: before each validation, recompute the running statistics over this many training
            clips (precise batch normalization); 0 disables it. Frozen statistics do not change.
        freeze: names of modules, or prefixes of names, whose weights and running statistics do not change; or
            the number of layers from the stem, see `optim.freeze`.
        unfreeze: train only the classifier until an epoch, then all layers with a smaller learning rate below
            the classifier. None: train all layers from the start.
        lora: train low-rank adapters and the classifier instead of the whole network. The saved weights
            contain the adapters, merged. None: no adapters.
        ema_decay: decay per step of an exponential moving average of the weights, which is validated and
            saved. None: no average.
        max_grad_norm: gradient clipping: the largest L2 norm of all gradients; None disables it.
        val_every: epochs between validations. The last epoch is always validated.
        patience: stop after this many validations in a row without improvement; None never stops early.
        probe: train a probe on stored features of a frozen encoder. `model` is then a builder of
            `models.probe`, and `optimizer.lr` belongs to the schedule only. None trains the whole network.
        starts_from: the initial weights of the published result; documentation only.
        reported: the published result.
        modified: the changes made by `--set`, in alphabetical order.

    Raises:
        UserError: a field has a wrong type or value, or two fields exclude each other.
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
    unfreeze: Unfreeze | None = None
    lora: LoRA | None = None
    ema_decay: Annotated[float, "a number such as 0.999", above(0), below(1)] | None = None
    max_grad_norm: PositiveFloat | None = None
    val_every: PositiveInt = 1
    patience: PositiveInt | None = None
    probe: ProbeSettings | None = None
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
            raise UserError(
                f"Recipe: norm_clips is {self.norm_clips} and batch_norm is 'sync'; expected only one of "
                "them. Set norm_clips=None or batch_norm='train'"
            )
        if self.lora is not None and self.unfreeze is not None:
            raise UserError(
                "Recipe: lora and unfreeze are both set; expected only one of them. With LoRA the layers "
                "below the classifier are never unfrozen. Set lora=None or unfreeze=None"
            )
        if self.recompute and self.compile is not None:
            raise UserError(
                f"Recipe: recompute is True and compile is {self.compile!r}; expected only one of "
                "them. torch.compile decides itself which activations to keep. Set recompute=False or "
                "compile=None"
            )
        if self.probe is not None:
            self._check_probe()

    def _check_probe(self) -> None:
        """Check that the recipe of a probe changes nothing about an encoder, which is not trained."""
        if self.model.builder not in PROBES:
            raise UserError(
                f"Recipe: probe is set and model is {self.model}; expected one of "
                f"{', '.join(builder.__name__ for builder in PROBES)}. Use --probe, or set probe=None"
            )
        if self.optimizer.lr == 0:
            raise UserError(
                "Recipe: optimizer.lr is 0 and probe is set; expected a number above 0. The heads have the "
                "learning rates of probe.learning_rates"
            )
        for field_ in fields(self):
            if field_.name in _NOT_FOR_PROBES and getattr(self, field_.name) != field_.default:
                raise UserError(
                    f"Recipe: {field_.name} is {getattr(self, field_.name)!r:.60} and probe is set; expected "
                    f"{field_.default!r}, because the encoder is not trained and features are stored. Omit "
                    f"{field_.name}"
                )

    @property
    def val_protocol(self) -> Protocol:
        """Return the protocol of the validations during training."""
        return self._protocol(self.val)

    @property
    def test_protocol(self) -> Protocol:
        """Return the protocol of tests and predictions."""
        return self._protocol(self.test)

    def _protocol(self, views: TestViews) -> Protocol:
        return Protocol(views=views, normalize=self.normalize, average=self.average, window=self.window)

    @property
    def name(self) -> str:
        """Return the recipe's name: model, clip_len x frame_interval x num_clips, epochs, data set, modality.

        SlowFast is named after its slow pathway, as in the literature: every eighth frame of a 32x2 clip is
        4x16. The number of slow frames comes from the name of the builder.
        """
        model, clips = self.model.builder.__name__, self.train.clips
        slow = re.fullmatch(r"(.+)_(\d+)x\d+", model)
        if slow and isinstance(clips, DenseClips | PySlowFastClips):
            model, alpha = slow[1], clips.clip_len // int(slow[2])
            clips = replace(clips, clip_len=int(slow[2]), frame_interval=clips.frame_interval * alpha)
        model += f"_{self.variant}" * bool(self.variant)
        return f"{model}_{clips}_{self.epochs}e_{self.dataset}_{self.modality}"

    def __str__(self) -> str:
        """Return all fields as text over several lines; the text is the same on every machine."""
        return pformat(self, width=100)
