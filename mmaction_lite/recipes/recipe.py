"""What a recipe is: everything that makes a number, in one frozen value."""

import ast
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pprint import pformat
from typing import Any, Literal, TypeVar

from torch import nn

from mmaction_lite.data.loading.batch_plan import Multigrid
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.samplers import DenseClips, PySlowFastClips
from mmaction_lite.data.views.views import Views
from mmaction_lite.device import CompileMode, Precision
from mmaction_lite.errors import UserError, nearest
from mmaction_lite.optim import BatchNormMode, Optimizer, Schedule
from mmaction_lite.tasks.losses import LossName

T = TypeVar("T")


class Build:
    """A builder with its arguments: `Build(tsm_r50, dropout=0.5)(num_classes=400)` is a network.

    Unlike `functools.partial` it compares by value, prints the same on every machine, and refuses an
    unknown argument when the recipe is read, not when it is built.
    """

    def __init__(self, builder: Callable[..., nn.Module], **arguments: Any):
        inspect.signature(builder).bind_partial(**arguments)
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

    top1: float
    top5: float | None = None
    source: str


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
        loss: "cross_entropy" of one class, or "binary_cross_entropy" of every class by itself, which clips
            with several classes need.
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
        freeze: names of modules, or beginnings of them, whose weights and running statistics stay.
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
    train: Views
    val: Views
    test: Views
    optimizer: Optimizer
    schedule: Schedule
    epochs: int
    batch_size: int
    multigrid: Multigrid | None = None
    modality: str = "rgb"
    variant: str = ""
    normalize: Normalize = field(default_factory=Normalize)
    loss: LossName = "cross_entropy"
    label_smoothing: float = 0.0
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    class_balance: float = 0.0
    mixing: Mixing | None = None
    precision: Precision = "float32"
    clips_per_device: int | None = None
    norm_clips: int | None = None
    recompute: bool = False
    compile: CompileMode | None = None
    batch_norm: BatchNormMode = "train"
    precise_bn_clips: int = 0
    freeze: tuple[str, ...] = ()
    ema_decay: float | None = None
    max_grad_norm: float | None = None
    val_every: int = 1
    patience: int | None = None
    starts_from: str | None = None
    reported: Reported | None = None
    modified: tuple[str, ...] = ()

    def __post_init__(self):
        if not isinstance(self.model, Build):
            name = getattr(self.model, "__name__", repr(self.model))
            raise UserError(f"model is {name}; a recipe takes the builder with its arguments: Build({name})")
        for name in ("epochs", "batch_size", "val_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.multigrid is not None:
            self.multigrid.check(self.train, self.epochs)
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise UserError(f"max_grad_norm is {self.max_grad_norm}; it must be above 0, or none")
        for name in ("clips_per_device", "norm_clips"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1, or none")
        if self.norm_clips is not None and self.batch_norm == "sync":
            raise UserError("norm_clips and batch_norm sync exclude each other; leave one of them out")
        if self.recompute and self.compile is not None:
            raise UserError(
                "recompute and compile exclude each other: a compiler chooses itself what to keep"
            )
        if self.patience is not None and self.patience < 1:
            raise UserError(f"patience is {self.patience}; it must be at least 1, or none")
        if self.precise_bn_clips < 0:
            raise UserError(f"precise_bn_clips is {self.precise_bn_clips}; it must be 0 or above")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError(
                f"ema_decay is {self.ema_decay}; expected a share below 1, such as 0.999, or none"
            )
        if not 0 <= self.class_balance <= 1:
            raise UserError(f"class_balance is {self.class_balance}; expected 0 to 1")
        if isinstance(self.class_weights, tuple) and not all(w >= 0 for w in self.class_weights):
            raise UserError(f"class_weights are {self.class_weights}; expected numbers, 0 or above")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing is {self.label_smoothing}; expected a share below 1")

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


def apply_overrides(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with scalar fields set from the command line, marked as modified.

    Args:
        recipe: what to start from; not changed.
        settings: `path=value`, the path as in `optimizer.lr` or `model.dropout`.

    Raises:
        UserError: no such field, a value of another type, or not a setting at all.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: expected FIELD=VALUE, such as optimizer.lr=0.01")
        try:
            recipe = _replace(recipe, path.split("."), text, setting)
        except UserError as error:
            own = str(error)
            raise UserError(own if own.startswith("--set ") else f"--set {setting}: {own}") from None
        kept = [earlier for earlier in recipe.modified if earlier.partition("=")[0] != path]
        recipe = replace(recipe, modified=tuple(sorted([*kept, setting])))
    return recipe


def _replace(node: T, path: list[str], text: str, setting: str) -> T:
    """A copy of the dataclass or `Build` with the field at `path` set."""
    name, *rest = path
    if isinstance(node, Build):
        if rest:
            raise UserError(f"--set {setting}: {name} is a single value and has no field {rest[0]!r}")
        parameters = inspect.signature(node.builder).parameters
        _check_name(name, parameters.keys() - {"num_classes"}, node.builder.__name__, setting)
        value = _parse(text, typing.get_type_hints(node.builder).get(name, Any), setting)
        return typing.cast(T, Build(node.builder, **node.arguments | {name: value}))
    assert dataclasses.is_dataclass(node)
    assert not isinstance(node, type)
    names = {f.name for f in dataclasses.fields(node)} - {"modified", "reported"}
    _check_name(name, names, type(node).__name__, setting)
    value = getattr(node, name)
    if dataclasses.is_dataclass(value) or isinstance(value, Build):
        if not rest:
            inside = (
                value.arguments if isinstance(value, Build) else [f.name for f in dataclasses.fields(value)]
            )
            raise UserError(
                f"--set {setting}: {name} is a group; set one of {', '.join(f'{name}.{i}' for i in inside)}"
            )
        value = _replace(value, rest, text, setting)
    elif rest and value is None:
        raise UserError(
            f"--set {setting}: {name} is none in this recipe and has no field {rest[0]!r}; a recipe of your "
            "own can have it"
        )
    elif rest:
        raise UserError(f"--set {setting}: {name} is a single value and has no field {rest[0]!r}")
    else:
        value = _parse(text, typing.get_type_hints(type(node))[name], setting)
    return replace(node, **{name: value})  # pyright: ignore[reportReturnType]


def _check_name(name: str, names: typing.AbstractSet[str], owner: str, setting: str) -> None:
    if name not in names:
        raise UserError(f"--set {setting}: {owner} has no field {name!r}; {nearest(name, names)}")


def _parse(text: str, expected: Any, setting: str) -> Any:
    """The value of `text` as a literal, or as it stands where a string is expected."""
    try:
        value = ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        value = text
    if _is_a(value, expected):
        return float(value) if expected is float else value
    if _is_a(text, expected):
        return text
    raise UserError(f"--set {setting}: {text!r} is not {_describe(expected)}")


def _is_a(value: Any, expected: Any) -> bool:
    """Whether `value` fits the type hint: scalars, unions, literals and tuples of them."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_is_a(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_is_a, value, arguments))
    if expected is Any:
        return True
    if isinstance(value, bool) or not isinstance(expected, type):
        return expected is bool
    return isinstance(value, (int, float) if expected is float else expected)


def _describe(expected: Any) -> str:
    """The type hint in words."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(map(_describe, arguments))
    if origin is typing.Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(str, arguments))
    if origin is tuple:
        is_open = arguments[-1] is Ellipsis
        item = {int: "224", float: "1.5"}.get(arguments[0], '"a"')
        example = ", ".join([item] * (2 if is_open else len(arguments)))
        return f"{'values' if is_open else f'{len(arguments)} values'} such as '({example})'"
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a word",
        types.NoneType: "none",
    }
    return names.get(expected, f"of type {expected}")
