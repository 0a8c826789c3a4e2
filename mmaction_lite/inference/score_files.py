"""Combine score files: align their videos, fuse them, and calibrate the result, without the models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmaction_lite.data.views.temperature import Temperature
from mmaction_lite.errors import UserError
from mmaction_lite.inference.calibrate import apply_temperature, fit_temperature
from mmaction_lite.tasks.bootstrap import bootstrap_intervals
from mmaction_lite.tasks.calibration import reliability_of
from mmaction_lite.tasks.fusion import Match, align, check_weights, fit_weights, fuse
from mmaction_lite.tasks.metrics import intervals_of, readable_videos
from mmaction_lite.tasks.score_files import Scores, read_scores


class Combination(NamedTuple):
    """Score files and what was computed of them.

    Args:
        tables: the score files, with their videos in the same order.
        weights: weight of each file.
        uncalibrated: the fused scores, or those of the only file.
        temperature: fitted to validation scores; None if no file was given for it.
        fitted: the scores that the temperature was fitted on.
        result: the fused and calibrated scores.
    """

    tables: list[Scores]
    weights: tuple[float, ...]
    uncalibrated: Scores
    temperature: Temperature | None
    fitted: Scores | None
    result: Scores


def combine(
    files: Sequence[Path],
    *,
    weights: Sequence[float] | None = None,
    fit_on: Sequence[Path] = (),
    temperature_from: Sequence[Path] = (),
    match: Match = "path",
) -> Combination:
    """Read score files and fuse and calibrate them.

    Args:
        files: score files of the same videos and classes.
        weights: weight of each file in the weighted mean; None: those of `fit_on`, otherwise equal ones.
        fit_on: score files of the validation split, one for each of `files` and in their order, to which
            the weights are fitted; see `fit_weights`.
        temperature_from: likewise, to whose fused scores the temperature is fitted; see `fit_temperature`.
        match: how videos are compared; see `align`.

    Raises:
        UserError: a file is missing or damaged, the files do not belong together, or an argument is wrong.
    """
    if weights is not None and fit_on:
        raise UserError("--weights and --fit-on both determine the weights; pass one of them")
    if weights is not None:
        check_weights(weights, len(files))
    tables = align([read_scores(file) for file in files], match)
    if fit_on:
        weights = fit_weights(_of_each(fit_on, tables, "--fit-on", match))
    chosen = tuple(weights) if weights is not None else (1.0,) * len(tables)
    uncalibrated = result = fuse(tables, chosen)
    temperature = fitted = None
    if temperature_from:
        fitted = fuse(_of_each(temperature_from, tables, "--temperature-from", match), chosen)
        temperature = fit_temperature(fitted)
        result = apply_temperature(uncalibrated, temperature, fitted.file.name)
    return Combination(
        tables=tables,
        weights=chosen,
        uncalibrated=uncalibrated,
        temperature=temperature,
        fitted=fitted,
        result=result,
    )


def summarize(combination: Combination) -> dict[str, Any]:
    """Return what `mmaction-lite score --json` prints about scores, without tables.

    Returns:
        the metrics of the task, `intervals` (95 %) of some of them, `videos`, `unreadable`, `ece` (15 bins),
        `log_loss`, `protocol`, `weights`, `temperature` (None: not fitted) and `files`, the metrics of each
        score file and of the fused and calibrated scores.
    """
    result = combination.result
    readable = readable_videos(result.scores)
    tables = [*dict.fromkeys([*combination.tables, combination.uncalibrated, result])]
    return {
        **result.metrics,
        "videos": len(result.paths),
        "unreadable": int((~readable).sum()),
        "intervals": intervals_of(result.metrics, len(result.paths))
        | bootstrap_intervals(result.task, result.scores, result.labels, result.metrics),
        "ece": reliability_of(result.task, result.scores, result.labels).error,
        "log_loss": result.task.log_loss(result.scores[readable], result.labels[readable]),
        "protocol": result.protocol,
        "weights": list(combination.weights),
        "temperature": combination.temperature.value if combination.temperature else None,
        "files": [{"file": str(table.file), **table.metrics, "protocol": table.protocol} for table in tables],
    }


def _of_each(files: Sequence[Path], tables: Sequence[Scores], option: str, match: Match) -> list[Scores]:
    """Read the validation scores of each of the models.

    Raises:
        UserError: their number or their classes are not those of the score files, or see `align`.
    """
    if len(files) != len(tables):
        raise UserError(
            f"{option}: {len(files)} files for {len(tables)} score files; expected one for each, in the same "
            f"order, such as {' '.join([f'{option} VAL.npz'] * len(tables))}"
        )
    found = align([read_scores(file) for file in files], match)
    if found[0].class_names != tables[0].class_names or found[0].task != tables[0].task:
        raise UserError(
            f"{found[0].file} and {tables[0].file}: hold other classes or another task; expected validation "
            "scores of the same models"
        )
    return found
