"""Table of the heads of a probe, which were trained with different learning rates and weight decays."""

from collections.abc import Sequence
from typing import Any

from mmaction_lite.tasks.metrics import TITLES

Row = dict[str, Any]


def head_table(validation: Sequence[Row]) -> Row | None:
    """Return the validation scores of all heads of a probe for the template.

    Args:
        validation: rows of `metrics.jsonl` about validations.

    Returns:
        "title" of the metric that chooses the best head, and "rows", one for every head: learning rate,
        weight decay, best score with its epoch, last score and last loss, and whether the head is the kept
        one. None for a run that is no probe, and for rows that were edited by hand.
    """
    try:
        return _table([row for row in validation if "heads" in row])
    except (KeyError, TypeError, IndexError, ValueError):
        return None


def _table(validation: list[Row]) -> Row | None:
    if not validation or len(validation[-1]["heads"]) < 2:
        return None
    metric = [name for name in validation[-1]["heads"][0] if name in TITLES][0]  # noqa: RUF015
    best = max(validation, key=lambda row: float(row["heads"][row["best_head"]][metric]))
    rows = []
    for number, last in enumerate(validation[-1]["heads"]):
        scores = [(float(row["heads"][number][metric]), -float(row["epoch"])) for row in validation]
        score, epoch = max(scores)
        rows.append(
            {
                "lr": f"{float(last['lr']):g}",
                "weight_decay": f"{float(last['weight_decay']):g}",
                "best": score,
                "epoch": f"{-epoch:g}",
                "last": float(last[metric]),
                "loss": f"{float(last['loss']):.3f}",
                "is_kept": number == best["best_head"],
            }
        )
    return {"title": TITLES[metric], "rows": rows}
