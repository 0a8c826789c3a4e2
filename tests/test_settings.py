"""Settings refuse fields of a wrong type, choice or range, wherever they are made."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.settings import (
    ASCENDING,
    NOT_EMPTY,
    PositiveFloat,
    PositiveInt,
    Probability,
    above,
    at_least,
    below,
    check_fields,
    parse,
)


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
