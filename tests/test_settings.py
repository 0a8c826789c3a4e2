"""Settings refuse fields of a wrong type, choice or range, wherever they are made."""

import dataclasses
import importlib
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

import mmaction_lite
from mmaction_lite.benchmark.processes import WorkerConfig
from mmaction_lite.benchmark.run import Plan
from mmaction_lite.benchmark.settings import SETTINGS
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.sources.live import CaptureSettings
from mmaction_lite.data.tools.prepare import Form
from mmaction_lite.data.tools.windows import TrainingWindows
from mmaction_lite.data.views.augment import ColorJitter, RandAugment, RandomErasing
from mmaction_lite.data.views.crops import RandomCrop
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.data.views.samplers import SegmentWindows, TimedClips
from mmaction_lite.data.views.temperature import Temperature
from mmaction_lite.errors import UserError
from mmaction_lite.inference.explain import ExplainSettings
from mmaction_lite.inference.features import FeatureSettings
from mmaction_lite.inference.predict import PredictionSettings
from mmaction_lite.inference.segments import PathRule, SegmentRule
from mmaction_lite.inference.windows import Windows
from mmaction_lite.models.lora import LoRA
from mmaction_lite.optim.unfreezing import Unfreeze
from mmaction_lite.recipes import get_recipe, list_recipes
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.serve.readers import ClipReader, VideoLimits
from mmaction_lite.serve.settings import ServeSettings
from mmaction_lite.settings import (
    ASCENDING,
    NOT_EMPTY,
    Limit,
    PositiveFloat,
    PositiveInt,
    Probability,
    above,
    at_least,
    below,
    check_fields,
    field_hints,
    parse,
)
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.task import Task
from mmaction_lite.tasks.verb_noun import VerbNoun
from mmaction_lite.weights.card import ModelCard
from mmaction_lite.weights.download import DownloadSettings


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: tuple[PositiveInt, PositiveInt] = (1, 2)

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Example:
    flag: bool = False
    count: PositiveInt = 1
    rate: PositiveFloat | None = None
    share: Probability = 0.5
    decay: Annotated[float, "a number such as 0.9", above(0), below(1)] = 0.9
    mode: Literal["a", "b"] = "a"
    places: Literal[5, 13] = 5
    weights: Literal["balanced"] | tuple[Annotated[float, at_least(0)], ...] | None = None
    names: Annotated[tuple[str, ...], NOT_EMPTY] = ("a",)
    bounds: Annotated[tuple[float, float], ASCENDING] = (0.0, 1.0)
    inner: Inner = Inner()
    table: dict[str, list[int]] | None = None
    function: Callable[[], int] | str = "a"
    anything: Any = None

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("flag", 1, "flag is 1; expected True or False"),
        ("count", 0, "count is 0; expected an integer, at least 1"),
        ("count", True, "count is True; expected an integer, at least 1"),
        ("count", 1.0, "count is 1.0; expected an integer, at least 1"),
        ("count", 10**30, f"count is {10**30}; expected an integer, at least 1"),
        ("rate", 0, "rate is 0; expected a number, above 0, or None"),
        ("rate", math.nan, "rate is nan; expected a number, above 0, or None"),
        ("rate", math.inf, "rate is inf; expected a number, above 0, or None"),
        ("rate", 10**400, f"rate is 1{'0' * 99}…; expected a number, above 0, or None"),
        ("rate", "1", "rate is '1'; expected a number, above 0, or None"),
        ("share", 1.5, "share is 1.5; expected a probability, at least 0 and at most 1"),
        ("decay", 1, "decay is 1; expected a number such as 0.9, above 0 and below 1"),
        ("mode", "c", "mode is 'c'; expected one of 'a', 'b'"),
        ("places", 5.0, "places is 5.0; expected one of 5, 13"),
        (
            "weights",
            (1, -1),
            "weights is (1, -1); expected 'balanced', a tuple such as (0.5, 0.5), each a number, at least 0, "
            "or None",
        ),
        (
            "weights",
            [1.0],
            "weights is [1.0]; expected 'balanced', a tuple such as (0.5, 0.5), each a number",
        ),
        ("names", (), 'names is (); expected a tuple such as ("a", "a"), each a string, not empty'),
        ("names", "abc", 'names is \'abc\'; expected a tuple such as ("a", "a"), each a string, not empty'),
        (
            "bounds",
            (2, 1),
            "bounds is (2, 1); expected a tuple of 2 values such as (0.5, 0.5), each a number, in "
            "ascending order",
        ),
        ("bounds", (1, 2, 3), "bounds is (1, 2, 3); expected a tuple of 2 values such as (0.5, 0.5)"),
        ("inner", (1, 2), "inner is (1, 2); expected Inner(...)"),
        ("table", {"a": [1.5]}, "table is {'a': [1.5]}; expected a "),
        ("function", 3, "function is 3; expected a "),
    ],
)
def test_wrong_fields_are_one_line(field, value, expected):
    with pytest.raises(UserError) as caught:
        Example(**{field: value})
    assert str(caught.value).startswith(f"Example: {expected}")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError) as again:
        replace(Example(), **{field: value})
    assert str(again.value) == str(caught.value)


def test_right_fields_stay_as_they_are():
    made = Example(
        count=3, rate=2, share=1, decay=1e-9, mode="b", places=13, weights=(0, 1.5), names=("b", "c"),
        bounds=(1, 1), inner=Inner(size=(3, 4)), table={"a": [1]}, function=lambda: 3, anything=object,
    )  # fmt: skip
    assert (made.rate, type(made.rate)) == (2, int)
    assert made.weights == (0, 1.5)
    assert Example(weights="balanced", function=lambda: 3).weights == "balanced"


@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(0.5), np.int64(1), torch.tensor(0.5)])
def test_scalars_of_arrays_are_refused_with_advice(value):
    with pytest.raises(
        UserError, match=r"Example: share is .*; expected a probability.*Convert it with .item"
    ):
        Example(share=value)


def test_nested_settings_name_their_own_class():
    with pytest.raises(UserError, match=r"^Inner: size is \(0, 2\); expected a tuple of 2 values"):
        Inner(size=(0, 2))


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("1e-3", float, 1e-3),
        ("3", float, 3),
        ("true", bool, True),
        ("None", float | None, None),
        ("none", str, "none"),
        ("123", str, "123"),
        ("abc", str, "abc"),
        ("(3,5)", tuple[int, ...], (3, 5)),
        ("b", Literal["a", "b"], "b"),
        ("half", Literal["a", "b"], "half"),
        ("nan", float, "nan"),
        ("1 +", float, "1 +"),
        ("(" * 300, float, "(" * 300),
    ],
)
def test_texts_become_values(text, hint, value):
    parsed = parse(text, hint)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_norm", "freeze"), ("precision", "half"), ("epochs", 0), ("epochs", 1.5), ("max_grad_norm", -1)],
)
def test_a_users_file_and_the_command_line_get_the_same_message(field, value):
    recipe = get_recipe("tsm_r50_1x1x8_50e_kinetics400_rgb")
    with pytest.raises(UserError) as in_file:
        replace(recipe, **{field: value})
    with pytest.raises(UserError) as in_command:
        apply_overrides(recipe, [f"{field}={value}"])
    assert str(in_command.value) == f"--set {field}={value}: {in_file.value}"
    assert str(in_file.value).startswith(f"Recipe: {field} is {value!r}; expected ")


def test_arguments_of_a_builder_are_checked():
    def mine(num_classes: int, dropout: float = 0.5, depth=3, other: "Missing" = None):  # noqa: F821 # pyright: ignore
        raise NotImplementedError

    def typed(num_classes: int, dropout: float = 0.5):
        raise NotImplementedError

    with pytest.raises(UserError, match=r"^typed: dropout is 'high'; expected a number$"):
        Build(typed, dropout="high")
    Build(typed, dropout=1)
    Build(mine, dropout="unknown hints are not checked", depth="x", other=3)


# Frozen dataclasses that the package fills itself: results, tables of arrays and tasks of workers.
NO_SETTINGS = {
    *("ArrayVideo", "Check", "ClassMetrics", "ClassResults", "Complexity", "Conversion", "Evaluation"),
    *("Features", "StreamAnswer"),
    *("Ignored", "LoaderReport", "Mistake", "Name", "PacketIndex", "Prediction", "Prepare", "Ratio"),
    *("Report", "RunFolder", "Samples", "Scores", "TrainingState"),
    *("_ClassFolder", "_Column", "_Resolved", "Labels", "StoredSettings", "TarIndex", "TensorFile"),
    *("WeightsEntry", "WindowPlan"),
}


def frozen_dataclasses() -> Iterator[Any]:
    """Return the frozen dataclasses that are defined in any module of the package."""
    for found in pkgutil.walk_packages(mmaction_lite.__path__, "mmaction_lite."):
        if not found.name.endswith(".__main__"):
            module = importlib.import_module(found.name)
            for kind in vars(module).values():
                is_own = isinstance(kind, type) and kind.__module__ == module.__name__
                if is_own and dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen:  # pyright: ignore
                    yield kind


def inside(value: Any) -> Iterator[Any]:
    """Return the dataclass instances inside a value, itself included."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from inside(item)
    elif dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from inside(getattr(value, field.name))


EXAMPLES = {
    type(example): example
    for example in inside(
        [
            list(list_recipes().values()),
            list(SETTINGS),
            ModelCard.of(get_recipe("tsn_r50_1x1x3_100e_kinetics400_rgb"), ("a", "b")),
            TimedClips(clip_len=8, target_fps=4.0),
            SegmentWindows(window_len=4),
            ExplainSettings(layers=("backbone",), fill="mean"),
            Windows(seconds=2.0, stride=0.5),
            CaptureSettings(fps=30.0, size=(640, 480)),
            PathRule(switch=2.0),
            SegmentRule(smooth=2.0),
            FeatureSettings(layer="fc", stride=0.5, window=2.0),
            Temperature(value=1.5),
            RandomCrop(size=(8, 8)),
            ColorJitter(),
            RandAugment(),
            RandomErasing(),
            Mixing(),
            Unfreeze(),
            LoRA(),
            Form(),
            TrainingWindows(),
            WorkerSettings(),
            ServeSettings(),
            ClipReader(
                views=get_recipe("tsn_r50_1x1x3_100e_kinetics400_rgb").test,
                limits=VideoLimits(max_seconds=60, max_frames=1000, max_side=1000),
            ),
            PredictionSettings(),
            DownloadSettings(),
            SingleLabel(),
            VerbNoun(),
            Plan(
                device="cpu", batch_size=2, precision="float32", peer_precisions=(), compile=None, devices=1,
                data=None, workers=0, rounds=1,
            ),
            WorkerConfig(
                setting="tsn", input=(1, 2, 3, 4), batch_size=1, device="cpu", threads=1, precision="float32",
                compile=None, video=None, frames=None, list=None, workers=0,
            ),
        ]
    )
}  # fmt: skip
FIELDS = [
    pytest.param(kind, name, hint, id=f"{kind.__name__}.{name}")
    for kind in EXAMPLES
    for name, hint in field_hints(kind).items()
]


class Foreign:
    """A value of a type that no setting has."""

    def __repr__(self) -> str:
        return "Foreign()"


def wrong_values(hint: Any) -> list[Any]:
    """Return values of other types, none of the choices, and outside of each limit of a type hint."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        candidates = (-2, -1, 0, 1, 10**6) if arguments[0] in (int, float) else ((), (0.9, 0.1), (9, 1))
        limits = [limit for limit in hint.__metadata__ if isinstance(limit, Limit)]
        outside = [[value for value in candidates if not limit.holds(value)] for limit in limits]
        assert all(outside), f"no value tested is outside of {limits}"
        return sum(outside, wrong_values(arguments[0]))
    if origin in (typing.Union, types.UnionType):
        wrong = [value for option in arguments for value in wrong_values(option)]
        if types.NoneType in arguments:
            wrong = [value for value in wrong if value is not None]
        return [value for value in wrong if not isinstance(value, str)] if str in arguments else wrong
    if origin is Literal:
        return [Foreign(), "no such choice", 10**6, True]
    if origin is tuple and arguments[-1] is Ellipsis:
        return [Foreign(), "text", [], *((value,) for value in wrong_values(arguments[0]))]
    if origin is tuple:
        items = [(value,) * len(arguments) for value in wrong_values(arguments[0])]
        return [Foreign(), "text", (), (1,) * (len(arguments) + 1), *items]
    scalars = {
        float: ["0.5", None, True, math.nan, math.inf, -math.inf, np.float64(0.5)],
        int: ["1", None, True, 1.0, np.int64(1)],
        bool: ["true", None, 1],
        str: [None, 3, b"text"],
        types.NoneType: [],
    }
    others = (
        [3, SingleLabel if hint is Task else hint] if hint is Task or dataclasses.is_dataclass(hint) else []
    )
    return [Foreign(), *scalars.get(hint, others)]


def test_every_settings_dataclass_checks_its_fields():
    unchecked = [kind for kind in frozen_dataclasses() if kind not in EXAMPLES and dataclasses.fields(kind)]
    assert not [kind for kind in unchecked if kind.__name__ not in NO_SETTINGS], (
        "call check_fields in __post_init__ of new settings and add an example to EXAMPLES; list dataclasses "
        "that hold results in NO_SETTINGS"
    )
    assert len(unchecked) < 32


@pytest.mark.parametrize(("kind", "name", "hint"), FIELDS)
def test_every_field_refuses_wrong_values_in_one_line(kind, name, hint):
    for value in wrong_values(hint):
        with pytest.raises(UserError) as caught:
            replace(EXAMPLES[kind], **{name: value})
        message = str(caught.value)
        assert message.startswith(f"{kind.__name__}: {name} is "), message
        assert "; expected " in message
        assert "\n" not in message


def test_all_fields_of_the_largest_settings_are_among_them():
    tested = {parameter.id for parameter in FIELDS}
    assert {"Recipe.batch_norm", "Recipe.precision", "SGD.lr", "TrainViews.crop", "Form.crf"} <= tested
    assert len(tested) > 120
