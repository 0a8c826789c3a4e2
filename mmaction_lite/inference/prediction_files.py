"""Write predictions to CSV and JSON Lines files while a prediction runs."""

import csv
import json
import math
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from mmaction_lite.data.loading.loader import Fault
from mmaction_lite.errors import UserError
from mmaction_lite.files import check_replaceable, writing
from mmaction_lite.inference.predict import Prediction

COLUMNS = ("video", "rank", "label", "score", "protocol", "error")
HEADER = ",".join(COLUMNS)


def to_row(
    result: Prediction | Fault, top: int | None = None, threshold: float | None = None, arithmetic: str = ""
) -> dict[str, Any]:
    """Return a result as a dictionary that JSON can express.

    Args:
        result: a prediction, or the reason why a video cannot be read.
        top: number of classes at most; None: all.
        threshold: smallest probability of a class in the row; None: all.
        arithmetic: see `PredictionSettings.arithmetic`.

    Returns:
        `video` and `error`; or `video`, `predictions` (a list of `label` and `score`, the most probable
        first; a score that is not a finite number is None) and `protocol`.
    """
    if isinstance(result, Fault):
        return {"video": result.path, "error": result.reason}
    found = [
        {"label": label, "score": float(score) if math.isfinite(score) else None}
        for label, score in zip(result.labels, result.scores, strict=True)
        if threshold is None or score >= threshold
    ]
    return {"video": result.video, "predictions": found[:top], "protocol": f"{result.protocol}{arithmetic}"}


class PredictionFiles:
    """Files of predictions, which are complete after every row. A context manager.

    An earlier file of predictions is replaced.

    Args:
        table: CSV file with one line per video and class, or None.
        lines: JSON Lines file with the rows of `to_row`, or None.

    Raises:
        UserError: a file cannot be written, or is not a file of predictions; or both are the same file.
    """

    def __init__(self, table: Path | None, lines: Path | None):
        for path, is_ours in ((table, _is_table), (lines, _is_lines)):
            if path is not None:
                check_replaceable(path, "a file of predictions of mmaction-lite", is_ours)
        if table is not None and lines is not None and table.absolute() == lines.absolute():
            raise UserError(f"{table}: --csv and --jsonl name the same file; choose two names")
        self._table, self._lines = table, lines
        self._files: dict[Path, TextIO] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "PredictionFiles":
        for path in filter(None, (self._table, self._lines)):
            with writing(path):
                # Bytes of file names that are not UTF-8 (lone surrogates) become escape sequences.
                file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
                self._files[path] = self._stack.enter_context(file)
        if self._table is not None:
            self._write(self._table, [HEADER + "\n"])
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def write(self, row: dict[str, Any]) -> None:
        """Write a row of `to_row`, and flush the files.

        Raises:
            UserError: a file cannot be written, for example because the disk is full.
        """
        if self._lines is not None:
            self._write(self._lines, [json.dumps(row, allow_nan=False) + "\n"])
        if self._table is not None:
            self._write(self._table, _csv_lines(row))

    def _write(self, path: Path, lines: Iterable[str]) -> None:
        with writing(path):
            self._files[path].writelines(lines)
            self._files[path].flush()


class _Lines(list[str]):
    """List with the method `write`, for `csv.writer`."""

    write = list.append


def _csv_lines(row: dict[str, Any]) -> list[str]:
    """Return the lines of one video; a video without a class above the threshold has one line, too."""
    lines = _Lines()
    writer = csv.writer(lines, lineterminator="\n")
    video, protocol, error = row["video"], row.get("protocol", ""), row.get("error", "")
    for rank, found in enumerate(row.get("predictions", ()), start=1):
        writer.writerow([video, rank, found["label"], found["score"], protocol, ""])
    if not lines:
        writer.writerow([video, "", "", "", protocol, error])
    return lines


def _is_table(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return file.readline().rstrip("\n") in (HEADER, "")


def _is_lines(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    row = json.loads(first) if first else {"video": "", "error": ""}
    return "video" in row and ("error" in row or "predictions" in row)
