"""Results of a score file: metrics, confusion, results of each class, worst videos."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmaction_lite.data.annotations.paths import exists
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.report.figures import data_uri, matrix_image, svg_uri
from mmaction_lite.report.reliability import reliability_figure
from mmaction_lite.tasks.bootstrap import bootstrap_intervals
from mmaction_lite.tasks.calibration import reliability_of
from mmaction_lite.tasks.class_table import class_names_of, class_table, mistake_table, to_csv
from mmaction_lite.tasks.metrics import intervals_of, readable_videos
from mmaction_lite.tasks.score_files import Scores
from mmaction_lite.tasks.task import ClassResults

Row = dict[str, Any]

MOST_WORST_VIDEOS = 12
MOST_CONFUSED_PAIRS = 20  # beside a confusion matrix
MOST_LISTED_PAIRS = 100  # without a confusion matrix
MOST_LISTED_CLASSES = 1000  # in the table of classes; the CSV file lists all
LARGEST_PICTURE = 500  # classes; of more classes, there are only the most confused pairs
LARGEST_NUMBERED_MATRIX = 30  # classes; the confusion matrix of more classes is an image without numbers
THUMBNAIL_HEIGHT = 160  # pixels


def results_of(table: Scores) -> Row:
    """Return summary, class tables, worst and unreadable videos of a score file, for the template."""
    readable = readable_videos(table.scores)
    num_classes, videos = len(table.class_names), len(table.labels)
    found = table.task.metrics(table.scores, table.labels)
    shown = {name: found[name] for name in table.task.shown_metrics(num_classes)}
    mistakes = table.task.mistakes(table.scores, table.labels, table.class_names, MOST_WORST_VIDEOS)
    return {
        "summary": {
            "source": table.file.name,
            "videos": videos,
            "unreadable": int((~readable).sum()),
            "protocol": table.protocol,
            "metrics": shown,
            "intervals": intervals_of(shown, videos)
            | bootstrap_intervals(table.task, table.scores, table.labels, shown),
        },
        "groups": [
            _group(group, table.class_names) for group in table.task.class_results(table.scores, table.labels)
        ],
        "calibration": _calibration(table),
        "worst": [
            {"path": table.paths[m.index], "picture": thumbnail(table.paths[m.index])} | vars(m)
            for m in mistakes
        ],
        "unreadable": [{"path": table.paths[n], "reason": ""} for n in np.flatnonzero(~readable).tolist()],
    }


def _calibration(table: Scores) -> Row | None:
    """Return the reliability picture and its expected calibration error; None without a readable video."""
    found = reliability_of(table.task, table.scores, table.labels)
    if not found.counts.any():
        return None
    figure = reliability_figure([(table.file.name, found)])
    return {"uri": svg_uri(figure), "error": found.error}


def _group(group: ClassResults, classes: list[str]) -> Row:
    """Return the tables of one group of classes: confusion, most confused pairs, results of each class."""
    names = class_names_of(group, classes)
    per_class = class_table(group, classes)
    is_exclusive = group.mistakes is not None
    if group.mistakes is not None:  # add the most frequent mistake of each class
        for row in per_class:
            row |= {"mistake": "", "mistakes": 0}
        # Of equally frequent mistakes, the first one counts: go from the last to the first.
        for true, predicted, videos in group.mistakes[::-1].tolist():
            per_class[true] |= {"mistake": names[predicted], "mistakes": videos}
    listed = per_class
    if len(per_class) > MOST_LISTED_CLASSES:
        wrong = group.videos - group.correct
        chosen = np.argsort(-wrong, kind="stable")[:MOST_LISTED_CLASSES]
        listed = [per_class[k] for k in sorted(chosen.tolist())]
    return {
        "title": group.title,
        "class_names": names,
        "confusion": _confusion(group, names, mistake_table(group, classes)) if is_exclusive else None,
        "has_average_precision": group.average_precision is not None,
        "per_class": listed,
        "csv": _csv(to_csv(per_class)),
    }


def _confusion(group: ClassResults, names: list[str], mistakes: list[Row]) -> Row:
    """Return the confusion matrix as numbers or image, and the most confused pairs, with their CSV files."""
    matrix, num_classes = group.confusion, len(names)
    pairs = mistakes[: MOST_CONFUSED_PAIRS if num_classes <= LARGEST_PICTURE else MOST_LISTED_PAIRS]
    videos = [] if group.mistakes is None else group.videos[group.mistakes[: len(pairs), 0]].tolist()
    found: Row = {
        "matrix": None,
        "image": None,
        "pairs": [pair | {"of": count} for pair, count in zip(pairs, videos, strict=True)],
    }
    if matrix is None or num_classes > LARGEST_PICTURE:
        content = to_csv(mistakes, ["true", "predicted", "videos"])
        return found | {"csv": _csv(content), "file": "confused_pairs.csv"}
    is_numbered = num_classes <= LARGEST_NUMBERED_MATRIX
    found |= {"matrix": matrix.tolist()} if is_numbered else {"image": matrix_image(matrix)}
    head = "true \\ predicted"
    stream = io.StringIO(newline="")
    rows = ([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))
    csv.writer(stream).writerows([[head, *names], *rows])
    content = stream.getvalue().encode("utf-8", "surrogateescape")
    return found | {"csv": _csv(content), "file": "confusion_matrix.csv"}


def _csv(content: bytes) -> str:
    return data_uri(content, "text/csv;charset=utf-8")


def thumbnail(path: str) -> Row:
    """Return first, middle and last frame side by side: `{"uri": JPEG, ...}` or `{"reason": ...}`."""
    path = re.sub(r"#(t|frames)=[^#]*$", "", path)  # a part of a video is shown as the whole video
    try:
        if not exists(path, Path()):
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
