"""Recipes by name: each is a function that returns a `Recipe`."""

import importlib
import inspect
import pkgutil
import sys
import typing
from collections.abc import Callable
from pathlib import Path

from mmaction_lite.errors import UserError, nearest
from mmaction_lite.recipes.recipe import Recipe


def list_recipes() -> dict[str, Recipe]:
    """Return every recipe of the package by name, ordered by file, then by position in the file."""
    recipes = {}
    for module in pkgutil.iter_modules(__path__):
        found = _functions(importlib.import_module(f"{__name__}.{module.name}"))
        recipes |= {name: function() for name, function in found.items()}
    return recipes


def get_recipe(name: str) -> Recipe:
    """Return a recipe of the package by name, or the result of a function in a Python file.

    Args:
        name: the name of a recipe, or `FILE.py:FUNCTION`, such as `my.py:my_recipe`. The function takes no
            arguments and returns a `Recipe`.

    Raises:
        UserError: there is no such recipe, the file cannot be imported, or the function fails.
    """
    if ".py:" in name:
        return _from_file(*name.rsplit(":", 1))
    if name.endswith(".py"):
        raise UserError(f"{name}: no function is given; expected FILE.py:FUNCTION, such as {name}:my_recipe")
    family = name.split("_", 1)[0]
    if family in {module.name for module in pkgutil.iter_modules(__path__)}:
        function = _functions(importlib.import_module(f"{__name__}.{family}")).get(name)
        if function:
            return function()
    raise UserError(f"no recipe is named {name!r}; {nearest(name, list_recipes())} (see mmaction-lite list)")


def _from_file(file: str, function: str) -> Recipe:
    """Import the file as a module, so that worker processes can import it too, and call the function."""
    path = Path(file).resolve()
    if not path.is_file():
        raise UserError(f"{file}: no such file; expected FILE.py:FUNCTION, such as my.py:my_recipe")
    sys.path.insert(0, str(path.parent))
    try:
        module = importlib.import_module(path.stem)
    except Exception as error:
        raise UserError(f"{file}: cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(f"{file}: has no function {function!r}; {nearest(function, names)}")
    try:
        recipe = found()
    except UserError as error:
        raise UserError(f"{file}:{function}: {error}") from None
    except Exception as error:
        raise UserError(f"{file}:{function}: {type(error).__name__}: {error}") from error
    if not isinstance(recipe, Recipe):
        raise UserError(f"{file}:{function} returned a {type(recipe).__name__}; expected a Recipe")
    return recipe


def _functions(module: object) -> dict[str, Callable[[], Recipe]]:
    """Return the public functions of a module that take no arguments and are annotated to return a Recipe."""
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and not inspect.signature(function).parameters
        and typing.get_type_hints(function).get("return") is Recipe
        and function.__module__ == getattr(module, "__name__", None)
    }
