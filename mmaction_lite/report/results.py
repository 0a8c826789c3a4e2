"""Results of a score file: metrics, confusion, results of each class, worst videos."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmaction_lite.data.sources.source import open_source
from mmaction_lite.report.figures import data_uri, matrix_image
from mmaction_lite.report.scores import Scores
from mmaction_lite.tasks.metrics import most_confused
from mmaction_lite.tasks.task import ClassResults

Row = dict[str, Any]

MOST_WORST_VIDEOS = 12
MOST_CONFUSED_PAIRS = 20
LARGEST_NUMBERED_MATRIX = 30  # classes; the confusion matrix of more classes is an image without numbers
THUMBNAIL_HEIGHT = 160  # pixels


def results_of(table: Scores) -> Row:
    """Return summary, class tables, worst and unreadable videos of a score file, for the template."""
    readable = np.isfinite(table.scores).all(axis=1)
    num_classes = len(table.class_names)
    found = table.task.metrics(table.scores, table.labels)
    shown = {name: found[name] for name in table.task.shown_metrics(num_classes)}
    mistakes = table.task.mistakes(table.scores, table.labels, table.class_names, MOST_WORST_VIDEOS)
    return {
        "summary": {
            "source": table.file.name,
            "videos": len(table.labels),
            "unreadable": int((~readable).sum()),
            "protocol": table.protocol,
            "metrics": shown,
        },
        "groups": [
            _group(group, table.class_names[group.first : group.first + len(group.videos)])
            for group in table.task.class_results(table.scores, table.labels)
        ],
        "worst": [
            {"path": table.paths[m.index], "picture": thumbnail(table.paths[m.index])} | vars(m)
            for m in mistakes
        ],
        "unreadable": [{"path": table.paths[n], "reason": ""} for n in np.flatnonzero(~readable)],
    }


def _group(group: ClassResults, names: list[str]) -> Row:
    """Return the tables of one group of classes: confusion, most confused pairs, results of each class."""
    matrix = group.confusion
    names = [name.removeprefix(f"{group.title}: ") for name in names]
    per_class = [
        {
            "number": k,
            "name": name,
            "videos": int(group.videos[k]),
            "recall": group.recall[k],
            "precision": group.precision[k],
            "f1": group.f1[k],
        }
        for k, name in enumerate(names)
    ]
    if group.average_precision is not None:
        for row, precision in zip(per_class, group.average_precision, strict=True):
            row["average_precision"] = precision
    confusion: Row | None = None
    if matrix is not None:
        most_common = (matrix - np.diag(np.diag(matrix))).argmax(axis=1)
        for k, (row, j) in enumerate(zip(per_class, most_common, strict=True)):
            row["mistake"] = names[j] if j != k and matrix[k, j] else ""
            row["mistakes"] = int(matrix[k, j]) if j != k else 0
        is_numbered = len(names) <= LARGEST_NUMBERED_MATRIX
        confusion = {
            "matrix": matrix.tolist() if is_numbered else None,
            "image": None if is_numbered else matrix_image(matrix),
            "csv": _csv(
                [["true \\ predicted", *names], *([n, *row] for n, row in zip(names, matrix, strict=True))]
            ),
            "pairs": [
                {"true": names[t], "predicted": names[p], "videos": n, "of": int(group.videos[t])}
                for t, p, n in most_confused(matrix, MOST_CONFUSED_PAIRS)
            ],
        }
    return {
        "title": group.title,
        "class_names": names,
        "confusion": confusion,
        "has_average_precision": group.average_precision is not None,
        "per_class": per_class,
        "csv": _csv([list(per_class[0]), *(row.values() for row in per_class)]),
    }


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return data_uri(stream.getvalue().encode(), "text/csv;charset=utf-8")


def thumbnail(path: str) -> Row:
    """Return first, middle and last frame side by side: `{"uri": JPEG, ...}` or `{"reason": ...}`."""
    path = re.sub(r"#(t|frames)=[^#]*$", "", path)  # a part of a video is shown as the whole video
    try:
        if not Path(path).exists():
            return {"reason": "not found; paths are relative to the folder where the report is made"}
        with open_source(Path(path)) as video:
            height, width = video.size
            scale = min(1.0, THUMBNAIL_HEIGHT / height)
            size = max(1, round(height * scale)), max(1, round(width * scale))
            frames = video.frames([0, len(video) // 2, len(video) - 1], size=size)
    except Exception as error:  # a broken file must not prevent the report
        return {"reason": str(error).removeprefix(path).lstrip(": ") or type(error).__name__}
    gap = np.full((size[0], 4, 3), 128, np.uint8)
    strip = np.hstack([frames[0], gap, frames[1], gap, frames[2]])
    stream = io.BytesIO()
    Image.fromarray(strip).save(stream, "JPEG", quality=82)
    return {
        "uri": data_uri(stream.getvalue(), "image/jpeg"),
        "width": strip.shape[1],
        "height": strip.shape[0],
    }
