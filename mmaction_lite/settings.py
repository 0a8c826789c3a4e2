"""Check the fields of settings dataclasses, and parse the values that a command line gives them.

The type hint of a field states everything that is checked: its type, its choices (`Literal`) and its range
(`Annotated` with `Limit`s):

    @dataclass(frozen=True, kw_only=True)
    class Example:
        epochs: Annotated[int, at_least(1)]
        lr: Annotated[float, above(0)] | None = None

        def __post_init__(self):
            check_fields(self)

Conditions that involve several fields follow the call of `check_fields` in `__post_init__`.
"""

import ast
import dataclasses
import sys
import types
import typing
from collections import abc
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

from mmaction_lite.errors import UserError

_LONGEST = 100  # characters of a value in a message


class Limit(NamedTuple):
    """A condition on a value, for `Annotated`.

    Args:
        words: the condition in words, for error messages.
        holds: whether a value of the annotated type meets the condition.
    """

    words: str
    holds: Callable[[Any], bool]

    def __repr__(self) -> str:
        return self.words


def at_least(low: float) -> Limit:
    """Return the condition `value >= low`."""
    return Limit(f"at least {low}", lambda value: value >= low)


def at_most(high: float) -> Limit:
    """Return the condition `value <= high`."""
    return Limit(f"at most {high}", lambda value: value <= high)


def above(low: float) -> Limit:
    """Return the condition `value > low`."""
    return Limit(f"above {low}", lambda value: value > low)


def below(high: float) -> Limit:
    """Return the condition `value < high`."""
    return Limit(f"below {high}", lambda value: value < high)


ASCENDING = Limit("in ascending order", lambda values: list(values) == sorted(values))
NOT_EMPTY = Limit("not empty", lambda values: len(values) > 0)

PositiveInt = Annotated[int, at_least(1)]
PositiveInts = Annotated[tuple[PositiveInt, ...], NOT_EMPTY]
NonNegativeInt = Annotated[int, at_least(0)]
PositiveFloat = Annotated[float, above(0)]
NonNegativeFloat = Annotated[float, at_least(0)]
PositiveFraction = Annotated[float, above(0), at_most(1)]
Probability = Annotated[float, "a probability", at_least(0), at_most(1)]


def check_fields(settings: Any) -> None:
    """Check every field of a dataclass against its type hint.

    Types are exact: a bool is no int, and scalars of NumPy and PyTorch are refused, because their text is
    another and the text of settings is compared. An int is accepted where a float is expected. Floats must
    be finite. Values are never changed.

    Raises:
        UserError: a field has another type, is none of the choices, or is outside its range. The message
            names the class, the field, the value and what was expected.
    """
    kind = type(settings)
    for name, hint in field_hints(kind).items():
        check_value(getattr(settings, name), hint, f"{kind.__name__}: {name}")


def check_value(value: Any, hint: Any, name: str) -> None:
    """Check one value against a type hint; for values that are not fields of a dataclass.

    Args:
        value: the value to check.
        hint: a type hint. A hint that cannot be checked, such as a type variable, accepts everything.
        name: how the error message calls the value.

    Raises:
        UserError: `value` does not fit `hint`.
    """
    if not _fits(value, hint):
        advice = ". Convert it with .item()" if hasattr(value, "dtype") else ""
        raise UserError(f"{name} is {_shown(value)}; expected {describe(hint)}{advice}")


@cache
def field_hints(kind: type) -> Mapping[str, Any]:
    """Return the type hint of every field of a dataclass, in the order of the fields."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def argument_hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the type hints of the arguments of a function or class.

    Arguments without a hint are missing, and all are if the hints cannot be evaluated.
    """
    try:
        hinted = function.__init__ if isinstance(function, type) else function
        return typing.get_type_hints(hinted, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def parse(text: str, hint: Any) -> Any:
    """Return the value that `text` stands for where `hint` is expected.

    A Python literal (`0.1`, `(8, 8)`, `true`, `none`) is evaluated. If the result does not fit `hint` but the
    text itself does, the text is returned. A value that does not fit is returned nevertheless: the dataclass
    that receives it raises the error.
    """
    try:
        value = ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    return text if not _fits(value, hint) and _fits(text, hint) else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` has the type of `hint` and meets its limits."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        limits = [extra for extra in hint.__metadata__ if isinstance(extra, Limit)]
        return _fits(value, arguments[0]) and all(limit.holds(value) for limit in limits)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        keys, values = arguments
        return isinstance(value, dict) and all(_fits(k, keys) and _fits(v, values) for k, v in value.items())
    if origin is abc.Callable:
        return callable(value)
    return _has_type(value, hint)


def _has_type(value: Any, hint: Any) -> bool:
    """Whether `value` has the type `hint`, which has no arguments; True if `hint` cannot be checked."""
    if hint is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # neither NaN nor infinite
    if hint is int:
        return type(value) is int and abs(value) <= sys.maxsize
    if hint in (bool, str):
        return type(value) is hint
    if isinstance(value, type) and getattr(hint, "_is_protocol", False):
        return False  # a class has the methods of its instances
    try:
        return isinstance(value, hint)
    except TypeError:  # Any, a type variable, a protocol without `runtime_checkable`
        return True


def describe(hint: Any) -> str:
    """Return a type hint in words, such as "a number, above 0, or None"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        limits = [extra.words for extra in hint.__metadata__ if isinstance(extra, Limit)]
        names = [extra for extra in hint.__metadata__ if isinstance(extra, str)]
        name = names[0] if names else describe(arguments[0])
        return f"{name}, {' and '.join(limits)}" if limits else name
    if origin in (typing.Union, types.UnionType):
        return _listed([describe(option) for option in arguments])
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(repr, arguments))
    if origin is tuple:
        return _describe_tuple(arguments)
    scalars: dict[Any, str] = {
        bool: "True or False",
        float: "a number",
        int: "an integer",
        str: "a string",
        types.NoneType: "None",
    }
    if hint in scalars:
        return scalars[hint]
    name = getattr(hint, "__name__", str(hint))
    return f"{name}(...)" if dataclasses.is_dataclass(hint) else f"a {name}"


def _describe_tuple(items: tuple[Any, ...]) -> str:
    """Return the hint `tuple[items]` in words, with an example if its items are scalars."""
    length = "" if items[-1] is Ellipsis else f" of {len(items)} values"
    items = items if length else (items[0], items[0])
    words = [describe(item) for item in items]
    scalars = [typing.get_args(item)[0] if typing.get_origin(item) is Annotated else item for item in items]
    examples = [{int: "224", float: "0.5", str: '"a"'}.get(scalar, "") for scalar in scalars]
    if not all(examples):
        return f"a tuple of {', '.join(words) if length else words[0]}"
    each = f", each {words[0]}" if len(set(words)) == 1 else ""
    return f"a tuple{length} such as ({', '.join(examples)}){each}"


def _listed(words: list[str]) -> str:
    """Return `words` as "a or b", or as "a, b, or c"."""
    separator = ", or " if len(words) > 2 or "," in "".join(words) else " or "
    return ", ".join(words[:-1]) + separator + words[-1]


def _shown(value: Any) -> str:
    """Return the value for a message: one line of limited length."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
