"""The full text of every recipe, as run folders store it, equals the committed one.

After an intended change, rewrite the file and review its diff:

    python -m tests.recipes.test_snapshot
"""

import difflib
from functools import cache
from pathlib import Path

import pytest

from mmaction_lite import list_recipes

FILE = Path(__file__).with_name("recipes.txt")
HEAD = "### "
RECIPES = list_recipes()


@cache
def read_snapshot() -> dict[str, str]:
    """The committed text by name."""
    sections = FILE.read_text(encoding="utf-8").split(HEAD)[1:]
    return dict(section.rstrip("\n").split("\n", 1) for section in sections)


def write_snapshot() -> None:
    sections = [f"{HEAD}{name}\n{recipe}\n" for name, recipe in RECIPES.items()]
    FILE.write_text("\n".join(sections), encoding="utf-8")


def test_no_recipe_is_added_or_removed():
    assert list(read_snapshot()) == list(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_text(name):
    committed, current = read_snapshot().get(name, ""), str(RECIPES[name])
    diff = "\n".join(difflib.unified_diff(committed.split("\n"), current.split("\n"), lineterm="", n=0))
    assert current == committed, (
        f"{name} changed:\n{diff}\nIf intended: python -m tests.recipes.test_snapshot"
    )


if __name__ == "__main__":
    write_snapshot()
