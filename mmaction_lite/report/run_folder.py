"""Read what a training wrote into its run folder."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmaction_lite.errors import UserError
from mmaction_lite.report.scores import Scores, read_scores

Row = dict[str, Any]


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


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{file}: cannot be read ({reason}); give a run folder written by `mmaction-lite train`"
        ) from error


def _read_rows(file: Path, *keys: str) -> list[Row]:
    """Read the rows of a JSON-lines file, which must have `keys`. An incomplete last line is left out."""
    lines = _read_text(file).splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not row.keys() >= set(keys):
                raise ValueError(f"expected an object with {' and '.join(keys)}")
            rows.append(row)
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise UserError(f"{file}, line {number}: damaged ({error}); delete this line") from error
    return rows


def _name(recipe: str) -> str:
    """Return recipe and seed from the first line of `recipe.txt`, and whether `--set` changed the recipe."""
    first, _, rest = recipe.partition("\n")
    is_modified = re.search(r"modified=\([^)]", rest)
    return first.removeprefix("# ") + " (modified)" * bool(is_modified) if first.startswith("# ") else ""
