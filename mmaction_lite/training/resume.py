"""What may change when a run is resumed: its length, its validations, and unreadable clips."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from mmaction_lite.data.annotations.samples import Samples, absolute
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.tools.cleaned import is_cleaned_from
from mmaction_lite.errors import UserError, reading
from mmaction_lite.files import read_json_lines, write_json_lines
from mmaction_lite.recipes.recipe import Recipe

CHANGEABLE = ("epochs", "val_every", "patience")
_FIELD = re.compile(rf"(?m)^       ({'|'.join(CHANGEABLE)})=([^,]*),$")  # in the text of a recipe
# Fields with their defaults that runs of earlier versions do not list.
_ADDED = re.compile(r", (interpolation='bilinear'|draw='length'|starts='parts'|margin=False)(?=[,)])")
_DATA = re.compile(r"# trained on ((\d+) clips of (\d+) classes, checksum \w+)")


class Changes(NamedTuple):
    """Differences between a run and its continuation.

    Args:
        lines: one line for each change.
        old_clips: number of training clips before unreadable ones were removed; None if the data are equal.
    """

    lines: list[str]
    old_clips: int | None = None


def find_changes(
    out: Path, saved: str, text: str, recipe: Recipe, samples: Samples, *, classes: tuple[str, ...]
) -> Changes:
    """Compare the description of a run with that of its continuation.

    Args:
        out: run folder.
        saved: recipe, seed and data of the run, as in `recipe.txt`.
        text: those of the continuation.
        recipe: recipe of the continuation. Fields of `CHANGEABLE` may differ if `--set` set them.
        samples: the training split of the continuation.
        classes: class names of the run.

    Raises:
        UserError: something else differs, or the training split is another one
            and not the result of `data validate` for that of the run.
    """
    given = {setting.partition("=")[0] for setting in recipe.modified} & set(CHANGEABLE)
    lines = [
        f"{name} changes from {then} to {now}"
        for (name, then), (_, now) in zip(_FIELD.findall(saved), _FIELD.findall(text), strict=False)
        if then != now and name in given
    ]
    old_clips = None
    for then, now in _differences(_fixed(saved, given), _fixed(text, given)):
        before = _DATA.fullmatch(then)
        same_classes = classes == samples.classes and _DATA.fullmatch(now)
        if before and same_classes and is_cleaned_from(samples, "train", before[1]):
            old_clips = int(before[2])
            lines.append(f"the training split changes from {old_clips} to {len(samples)} readable clips")
            continue
        raise UserError(
            f"{out}: cannot resume: the run was started with {then or 'no such setting'!r}, now it is "
            f"{now or 'no such setting'!r}; start a new run with another --out"
        )
    return Changes(lines, old_clips)


def _fixed(text: str, given: set[str]) -> tuple[list[str], list[str]]:
    """Return the first two lines of a description, and its settings without those of the fields `given`."""
    first, _, rest = text.partition("\n")
    data, _, recipe = rest.partition("\n")
    if given:
        first = re.sub(r"_\d+e_", "_e_", first) if "epochs" in given else first
        recipe = recipe.partition("\n       modified=")[0]
        recipe = _FIELD.sub(lambda match: f"       {match[1]}=," if match[1] in given else match[0], recipe)
    # Line breaks depend on the number of fields.
    on_one_line = _ADDED.sub("", re.sub(r"\s*\n\s*", " ", recipe.strip()))
    return [first, data], re.split(r", (?=\w+=)", on_one_line)


def _differences(
    saved: tuple[list[str], list[str]], wanted: tuple[list[str], list[str]]
) -> Iterator[tuple[str, str]]:
    """Yield the lines and settings that differ, as text before and now; empty if there are none."""
    yield from ((then, now) for then, now in zip(saved[0], wanted[0], strict=True) if then != now)
    before, after = saved[1], wanted[1]
    for tag, i, end_i, j, end_j in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            yield ", ".join(before[i:end_i]), ", ".join(after[j:end_j])


def step_at(batch_plan: BatchPlan, epoch: float) -> int:
    """Return the number of steps that make `epoch` epochs, rounded."""
    first, end = batch_plan.first_step(int(epoch)), batch_plan.first_step(int(epoch) + 1)
    return first + round((epoch - int(epoch)) * (end - first))


def adapt_files(out: Path, batch_plan: BatchPlan, samples: Samples) -> None:
    """Adapt the files of a run to a training split without its unreadable clips.

    Rows of `metrics.jsonl` get the steps of their epochs, and `quarantine.jsonl` loses the removed clips.

    Args:
        out: run folder.
        batch_plan: batch sizes of the continuation.
        samples: the training split of the continuation.

    Raises:
        UserError: a row of `metrics.jsonl` has an epoch that is not a number.
    """
    metrics, quarantine = out / "metrics.jsonl", out / "quarantine.jsonl"
    if metrics.exists():
        rows = read_json_lines(metrics, "epoch")
        for line, row in rows:
            with reading(f"{metrics}, line {line}", advice="delete this line"):
                row["step"] = step_at(batch_plan, row["epoch"])
        write_json_lines(metrics, [row for _, row in rows])
    if quarantine.exists():
        names = {absolute(samples.name(sample)) for sample in range(len(samples))}
        rows = [row for _, row in read_json_lines(quarantine, "path")]
        write_json_lines(quarantine, [row for row in rows if absolute(str(row["path"])) in names])
