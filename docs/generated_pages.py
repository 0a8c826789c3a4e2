"""Pages of the site that are written from the package itself: recipes, models and the API reference.

Nothing here needs Sphinx: `write` leaves Markdown and reStructuredText files in a folder that git ignores.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

import mmaction_lite
from mmaction_lite.cli import app
from mmaction_lite.models.complexity import list_models
from mmaction_lite.recipes import list_recipes
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.weights.catalogue import SOURCES, WeightsEntry, catalogue

PACKAGE = Path(mmaction_lite.__file__).parent
# The rooms of the package in the order of the reference. The command line documents itself by `--help`.
ROOMS = {
    "recipes": "Recipes",
    "models": "Models",
    "weights": "Weights",
    "training": "Training",
    "inference": "Inference",
    "tasks": "Tasks",
    "optim": "Optimizers and schedules",
    "data.annotations": "Data: annotations",
    "data.sources": "Data: video sources",
    "data.views": "Data: views",
    "data.loading": "Data: loading",
    "data.tools": "Data: tools",
    "data.generated": "Data: generated data sets",
    "report": "Report",
    "benchmark": "Benchmark",
    "": "Processes, devices, files and errors",
}
ZOO = PACKAGE.parent / "docs" / "zoo.md"
ZOO_MARK = "<!-- Below: written by `python docs/generated_pages.py` from the catalogue. -->\n"
NOT_IN_THE_REFERENCE = {"cli", "__main__", "demo"}


def write(folder: Path) -> None:
    """Write all generated pages into `folder`; pages that no longer exist are removed."""
    pages = {"recipes.md": recipes(), "models.md": models(), "commands.md": commands(), **reference()}
    for old in folder.rglob("*.*"):
        if old.relative_to(folder).as_posix() not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # unchanged pages stay cached
            path.write_text(text, encoding="utf-8")


def recipes() -> str:
    """Return a table of the recipes of each family, then a section for each recipe, as Markdown."""
    found = list_recipes()
    published = [recipe for recipe in found.values() if recipe.reported]
    parts = [f"The package has {len(found)} recipes; {len(published)} of them have a published result."]
    for family, group in groupby(found.items(), key=lambda item: item[0].split("_", 1)[0]):
        module = sys.modules[f"mmaction_lite.recipes.{family}"]
        recipes = dict(group)
        rows = [
            (f"[`{name}`](#{name})", recipe.epochs, recipe.batch_size, _reported(recipe))
            for name, recipe in recipes.items()
        ]
        title, _, paper = (module.__doc__ or "").partition("\n")[0].rstrip(".").partition(" (")
        parts += [f"## {title}", f"({paper}." * bool(paper)]
        parts.append(_table(("recipe", "epochs", "batch size", "published top-1 / top-5"), rows))
        for name, recipe in recipes.items():
            parts += [f"({name})=\n### `{name}`", *_recipe_section(recipe, getattr(module, name))]
    return "\n\n".join(parts) + "\n"


def _recipe_section(recipe: Recipe, function: Callable[[], Recipe]) -> Iterator[str]:
    yield inspect.cleandoc(function.__doc__ or "")
    facts = [
        f"Training input (T, H, W, C): {'x'.join(map(str, recipe.train.view_shape))}",
        f"Test protocol: {recipe.test_protocol}",
        f"Initial weights: {recipe.starts_from or 'random'}",
    ]
    if recipe.reported:
        facts.append(f"Published top-1 / top-5: {_reported(recipe)} ({recipe.reported.source})")
    yield "\n".join(f"* {fact}" for fact in facts)
    yield f"<details><summary>All fields</summary>\n\n```python\n{recipe}\n```\n\n</details>"


def _reported(recipe: Recipe) -> str:
    if recipe.reported is None:
        return "–"
    return " / ".join(f"{x:.2f}" for x in (recipe.reported.top1, recipe.reported.top5) if x is not None)


def models() -> str:
    """Return the table of builders with their parameters and multiply-adds, as Markdown."""
    rows = [
        (
            f"`{row.builder}`",
            "x".join(map(str, row.input_shape[2:])),
            f"{row.parameters:,}",
            f"{row.multiply_adds / 1e9:.2f} G",
        )
        for row in list_models()
    ]
    return _table(("builder", "input (T, H, W)", "parameters", "multiply-adds of one view"), rows) + "\n"


def zoo() -> str:
    """Return the tables of public weights, the part of `docs/zoo.md` below `ZOO_MARK`, as Markdown."""
    entries = list(catalogue().values())
    available = [entry for entry in entries if entry.is_available]
    verified = sum(bool(entry.verified) for entry in available)
    logits = sum(entry.proof.startswith("logits") for entry in available)
    parts = [
        f"{len(available)} of {len(entries)} known files can be loaded; {verified} of them are verified with "
        f"the real file. For {logits}, the logits of the reference implementation are compared."
    ]
    for source, title in SOURCES.items():
        rows = [_zoo_row(entry) for entry in available if entry.source == source]
        if rows:
            head = (
                "name",
                "data set",
                "top-1 / top-5",
                "parameters",
                "license",
                "compared",
                "status",
            )
            parts += [f"## {title}", _table(head, rows)]
    notes = [(f"`{entry.name}`", entry.note) for entry in available if entry.note]
    parts += ["## Notes", _table(("name", "note"), notes)]
    missing = [
        (entry.original_name, SOURCES[entry.source], entry.dataset, _terms(entry), entry.unavailable)
        for entry in entries
        if not entry.is_available
    ]
    parts += ["## Not yet", "These files are known but cannot be loaded."]
    parts.append(_table(("weights", "source", "data set", "license", "reason"), missing))
    return "\n\n".join(parts) + "\n"


def _zoo_row(entry: WeightsEntry) -> tuple[str, ...]:
    accuracy = " / ".join(f"{x:.2f}" for x in (entry.top1, entry.top5) if x is not None)
    size = f"{entry.parameters:,}"
    return f"`{entry.name}`", entry.dataset, accuracy, size, _terms(entry), entry.proof, entry.status


def _terms(entry: WeightsEntry) -> str:
    return f"{entry.license}, **not for commercial use**" if entry.non_commercial else entry.license


def commands() -> str:
    """Return the help texts of all commands, as Markdown."""
    parts = []
    for name, command in _commands("mmaction-lite", typer.main.get_command(app)):
        with command.make_context(name, [], resilient_parsing=True) as context:
            parts.append(f"## `{name}`\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts) + "\n"


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield a command and the commands below it, with their full names."""
    yield name, command
    for below, inner in getattr(command, "commands", {}).items():
        yield from _commands(f"{name} {below}", inner)


def reference() -> dict[str, str]:
    """Return the pages of the API reference by file name: an index, a page per room and per module."""
    pages: dict[str, str] = {}
    rooms = []
    for room, title in ROOMS.items():
        file = f"room-{(room or 'foundations').replace('.', '-')}"
        rooms.append(f"   {file}")
        names = [name for name in modules() if _room(name) == room]
        pages |= {f"api/{name}.rst": _module_page(name, file) for name in names}
        summaries = "".join(f"* :doc:`{name}`: {_summary(name)}\n" for name in names)
        pages[f"api/{file}.rst"] = _page(title, summaries)
    pages["api/index.rst"] = _page("API reference", _toctree(rooms))
    return pages


@cache
def modules() -> list[str]:
    """Return the modules that the reference documents, without the name of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        is_private = any(part.startswith("_") for part in parts if part != "__init__")
        if name and not is_private and parts[0] not in NOT_IN_THE_REFERENCE and _has_content(path):
            found.append(name)
    return found


def _has_content(path: Path) -> bool:
    """Whether the module defines a public function or class."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in body)


def _room(name: str) -> str:
    return max((room for room in ROOMS if f"{name}.".startswith(f"{room}." if room else "")), key=len)


def _summary(name: str) -> str:
    """Return the first paragraph of a module's docstring."""
    path = PACKAGE.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n", 1)[0].split())


def _module_page(name: str, room: str) -> str:
    """Return the page of a module, which the sidebar leaves out.

    The sidebar is part of every page. With hundreds of modules, it would take most of the time of a build.
    """
    module = f"mmaction_lite.{name}"
    text = f"Folder: :doc:`{room}`\n\n.. automodule:: {module}\n   :members:\n"
    return f":orphan:\n\n{_page(module, text)}"


def _toctree(entries: list[str]) -> str:
    return "\n".join([".. toctree::", "   :maxdepth: 1", "", *entries, ""])


def _page(title: str, text: str) -> str:
    return f"{title}\n{'=' * len(title)}\n\n{text}"


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


if __name__ == "__main__":
    prose = ZOO.read_text(encoding="utf-8").partition(ZOO_MARK)[0]
    ZOO.write_text(f"{prose}{ZOO_MARK}\n{zoo()}", encoding="utf-8")
