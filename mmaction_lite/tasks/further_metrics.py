"""Further metrics, computed by scikit-learn (the extra `analysis`)."""

from typing import Any

import numpy as np

from mmaction_lite.errors import UserError
from mmaction_lite.tasks.metrics import readable_videos
from mmaction_lite.tasks.score_files import Scores
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.verb_noun import VerbNoun

TITLES = {
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "weighted_f1": "weighted F1",
    "roc_auc": "ROC AUC",
    "kappa": "Cohen's kappa",
    "mcc": "Matthews correlation",
}
UNREADABLE = -1  # predicted class of an unreadable video


def further_metrics(table: Scores, threshold: float = 0.5) -> dict[str, float]:
    """Compute precision, recall, F1, ROC AUC and measures of agreement.

    An unreadable video counts as one of which no class was predicted. Classes without a video, true or
    predicted, have no part in the means over classes.

    Args:
        table: the scores.
        threshold: probability from which a class counts as predicted, in multi-label tasks.

    Returns:
        the metrics by name. `roc_auc` is the mean over the classes of one class against the others, over
        readable videos; it is left out if no class has videos of both kinds. `kappa` and `mcc` exist where
        the classes exclude each other.

    Raises:
        UserError: scikit-learn is missing, or the task is `verb_noun`, whose classes are of two kinds.
    """
    try:
        from sklearn import metrics as sklearn
    except ImportError:
        raise UserError("--more needs scikit-learn: pip install 'mmaction-lite[analysis]'") from None
    if isinstance(table.task, VerbNoun):
        raise UserError(
            f"{table.file}: --more takes one group of classes, and the task is verb_noun; expected another "
            "task. `--per-class FILE.csv` writes precision, recall and F1 of verbs and nouns"
        )
    readable = readable_videos(table.scores)
    found: dict[str, float] = {}
    if isinstance(table.task, SingleLabel):
        true = table.labels
        predicted = np.where(readable, np.nan_to_num(table.scores, nan=-1).argmax(1), UNREADABLE)
        used = np.union1d(true, predicted[readable])
        found["kappa"] = float(sklearn.cohen_kappa_score(true, predicted))
        found["mcc"] = float(sklearn.matthews_corrcoef(true, predicted))
        is_true = true[:, None] == np.arange(table.scores.shape[1])
    else:
        is_true = table.labels
        true, predicted = is_true, (table.scores >= threshold) & readable[:, None]
        used = np.flatnonzero(true.any(0) | predicted.any(0))
    for average in ("macro", "micro", "weighted"):
        settings: dict[str, Any] = {"labels": used, "average": average, "zero_division": 0}
        precision, recall, f1, _ = sklearn.precision_recall_fscore_support(true, predicted, **settings)
        found[f"{average}_f1"] = float(f1)
        if average == "macro":
            found |= {"macro_precision": float(precision), "macro_recall": float(recall)}
    is_true = is_true[readable]
    both = np.flatnonzero(is_true.any(0) & ~is_true.all(0))
    if len(both):
        settings = {"average": None}
        areas = sklearn.roc_auc_score(is_true[:, both], table.scores[readable][:, both], **settings)
        found["roc_auc"] = float(np.mean(areas))
    return {name: found[name] for name in TITLES if name in found}
