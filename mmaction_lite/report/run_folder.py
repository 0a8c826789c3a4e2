"""Read what a training wrote into its run folder."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmaction_lite.errors import UserError, reading
from mmaction_lite.files import read_json_lines
from mmaction_lite.tasks.metrics import TITLES
from mmaction_lite.tasks.score_files import Scores, read_scores

Row = dict[str, Any]

ADVICE = "give a run folder written by `mmaction-lite train`"
TEXTS = {"split", "protocol", "path", "reason"}
NUMBERS = {"loss", "lr", "iteration_seconds", "data_seconds", "videos", "unreadable", *TITLES}


@dataclass(frozen=True, eq=False)
class RunFolder:
    """Contents of a run folder.

    Args:
        folder: the run folder.
        name: recipe and seed.
        recipe: text of the recipe.
        training: rows of `metrics.jsonl` about training steps.
        validation: rows of `metrics.jsonl` about validations.
        scores: scores of the test, otherwise of the validation; None if there is no score file yet.
        quarantine: unreadable training videos, each with path and reason.
    """

    folder: Path
    name: str
    recipe: str
    training: list[Row]
    validation: list[Row]
    scores: Scores | None
    quarantine: list[Row]


def read_run(folder: Path) -> RunFolder:
    """Read a run folder. The scores are those of the test if it has a score file, else of the validation.

    Raises:
        UserError: a file is missing or damaged; the message names the file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder; give the one named by --out when training")
    recipe = _read_text(folder / "recipe.txt")
    rows = _read_rows(folder / "metrics.jsonl", "step", "epoch")
    if not rows:
        raise UserError(f"{folder / 'metrics.jsonl'}: holds no row; train until the first one is written")
    score_file = next((f for f in (folder / "test.npz", folder / "val.npz") if f.exists()), None)
    quarantine = folder / "quarantine.jsonl"
    return RunFolder(
        folder=folder,
        name=_name(recipe) or folder.resolve().name,
        recipe=recipe,
        training=[row for row in rows if "split" not in row],
        validation=[row for row in rows if row.get("split") == "val"],
        scores=read_scores(score_file) if score_file else None,
        quarantine=_read_rows(quarantine, "path", "reason") if quarantine.exists() else [],
    )


def validation_source(weights: Path) -> str | None:
    """Return the file or folder whose videos chose the weights of a run.

    Args:
        weights: a run folder, or a weights file in a run folder.

    Returns:
        the source of the last validation; None if `weights` are not in a run folder.
    """
    file = (weights if weights.is_dir() else weights.parent) / "metrics.jsonl"
    if not weights.exists():
        return None
    try:
        rows = _read_rows(file, "step", "epoch")
    except UserError:
        return None
    protocols = [str(row.get("protocol", "")) for row in rows if row.get("split") == "val"]
    match = re.search(r"\d+ videos of (.+), \d+ unreadable$", protocols[-1]) if protocols else None
    return match[1] if match else None


def _read_text(file: Path) -> str:
    with reading(file, advice=ADVICE):
        return file.read_text(encoding="utf-8-sig")


def _read_rows(file: Path, *keys: str) -> list[Row]:
    """Read the rows of a JSON Lines file, which must have `keys`.

    Raises:
        UserError: a line is damaged, lacks a key, or has a text in place of a number.
    """
    rows = read_json_lines(file, *keys, advice=ADVICE)
    for number, row in rows:
        for key, value in row.items():
            is_number = isinstance(value, int | float) and not abs(value) > sys.float_info.max
            if not (isinstance(value, str) if key in TEXTS else is_number or key not in NUMBERS | {*keys}):
                raise UserError(
                    f"{file}, line {number}: {key} is {value!r:.60}; expected "
                    f"{'text' if key in TEXTS else 'a number'}. Delete this line"
                )
    return [row for _, row in rows]


def _name(recipe: str) -> str:
    """Return recipe and seed from the first line of `recipe.txt`, and whether `--set` changed the recipe."""
    first, _, rest = recipe.partition("\n")
    is_modified = re.search(r"modified=\([^)]", rest)
    return first.removeprefix("# ") + " (modified)" * bool(is_modified) if first.startswith("# ") else ""
