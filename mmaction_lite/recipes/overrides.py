"""Change fields of a recipe from the command line (`--set`)."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from mmaction_lite.errors import UserError, nearest
from mmaction_lite.recipes.recipe import Build, Recipe
from mmaction_lite.settings import argument_hints, field_hints, parse
from mmaction_lite.tasks.named import task_named
from mmaction_lite.tasks.task import Task

T = TypeVar("T")


def apply_overrides(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Return the recipe with fields set from the command line, and the changes listed in `modified`.

    Args:
        recipe: the recipe to start from. It is not changed.
        settings: changes as `path=value`; the path is `optimizer.lr` or `model.dropout`, for example.

    Raises:
        UserError: there is no such field, the value does not fit it, or a setting has no equals sign.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: expected FIELD=VALUE, such as optimizer.lr=0.01")
        try:
            recipe = _set_field(recipe, path.split("."), text)
        except UserError as error:
            advice = ". Put the setting in quotes in a shell" if "a tuple" in str(error) else ""
            raise UserError(f"--set {setting}: {error}{advice}") from None
        kept = [earlier for earlier in recipe.modified if earlier.partition("=")[0] != path]
        recipe = replace(recipe, modified=tuple(sorted([*kept, setting])))
    return recipe


def _set_field(node: T, path: list[str], text: str) -> T:
    """Return a copy of the dataclass or `Build` with the field at `path` set to the value of `text`."""
    name, *rest = path
    if isinstance(node, Build):
        parameters = inspect.signature(node.builder).parameters
        _check_name(name, parameters.keys() - {"num_classes"}, node.builder.__name__)
        _check_is_last(name, rest)
        value = parse(text, argument_hints(node.builder).get(name, Any))
        return typing.cast(T, Build(node.builder, **node.arguments | {name: value}))
    assert dataclasses.is_dataclass(node)
    assert not isinstance(node, type)
    hints = field_hints(type(node))
    _check_name(name, hints.keys() - {"modified", "reported"}, type(node).__name__)
    value = getattr(node, name)
    if isinstance(value, Task) and not rest:
        value = task_named(text)
    elif dataclasses.is_dataclass(value) or isinstance(value, Build):
        if not rest and text.lower() == "none" and types.NoneType in typing.get_args(hints[name]):
            return replace(node, **{name: None})  # pyright: ignore[reportReturnType]
        if not rest:
            inside = value.arguments if isinstance(value, Build) else field_hints(type(value))
            raise UserError(f"{name} is a group; set one of {', '.join(f'{name}.{i}' for i in inside)}")
        value = _set_field(value, rest, text)
    elif rest and value is None:
        value = _set_field(_default(name, rest[0], hints[name]), rest, text)
    else:
        _check_is_last(name, rest)
        value = parse(text, hints[name])
    return replace(node, **{name: value})  # pyright: ignore[reportReturnType]


def _default(name: str, field: str, hint: Any) -> Any:
    """Return the default settings of a group that is None, so that one of their fields can be set.

    Raises:
        UserError: the group is not a single dataclass, or needs values for some of its fields.
    """
    for kind in typing.get_args(hint):
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and field in field_hints(kind):
            required = [f for f in dataclasses.fields(kind) if f.default is f.default_factory]  # both missing
            if not required:
                return typing.cast(Any, kind)()
    raise UserError(
        f"{name} is None in this recipe and has no field {field!r}. Write a recipe of your own that "
        f"sets {name}"
    )


def _check_name(name: str, names: typing.AbstractSet[str], owner: str) -> None:
    if name not in names:
        raise UserError(f"{owner} has no field {name!r}; {nearest(name, names)}")


def _check_is_last(name: str, rest: list[str]) -> None:
    if rest:
        raise UserError(f"{name} is a single value and has no field {rest[0]!r}")
