"""Corrected labels of a data set, in a file of their own: the annotations of the data set never change.

The file is JSON Lines: a header, then one line per corrected clip. It is replaced as a whole, so that it is
complete after a crash, and locked, so that several servers may write it.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mmaction_lite.errors import UserError, printable
from mmaction_lite.files import check_replaceable, has_marker, read_json_lines, write_json_lines

FORMAT = "mmaction-lite corrections 1"
LOCK_SECONDS = 10.0


def default_file(data: Path) -> Path:
    """Return the corrections file of a data set: beside it, with its name."""
    data = data.absolute()
    return data.with_name(f"{data.name}.corrections.jsonl")


class Corrections:
    """The corrections file of a data set, which is written at the first correction.

    Args:
        file: the file.
        sources: files and folders of the data set, which are never written to.

    Raises:
        UserError: the file exists and holds something else, or its folder is not writable.
    """

    def __init__(self, file: Path, sources: tuple[Path, ...] = ()) -> None:
        self.file = file
        check_replaceable(file, "a corrections file of mmaction-lite", has_marker(FORMAT.encode()), sources)
        self._mutex = threading.Lock()
        self._read()

    def labels(self) -> dict[str, list[str]]:
        """Return the corrected class names by clip, as the file holds them now."""
        return {name: row["corrected"] for name, row in self._read().items()}

    def set(self, clip: str, labels: list[str], corrected: list[str] | None) -> None:
        """Store the corrected class names of a clip; None removes its correction.

        Args:
            clip: path and part of the clip, as the data set names it.
            labels: class names in the data set.
            corrected: the right class names.

        Raises:
            UserError: the file cannot be read or written, or another process keeps it locked.
        """
        with self._locked():
            rows = self._read()
            rows.pop(clip, None)
            if corrected is not None and corrected != labels:
                moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                rows[clip] = {"clip": clip, "labels": labels, "corrected": corrected, "time": moment}
            write_json_lines(self.file, [{"format": FORMAT}, *rows.values()])

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.file.exists():
            return {}
        (_, header), *lines = read_json_lines(self.file) or [(0, {})]
        if header.get("format") != FORMAT:
            raise UserError(
                f"{printable(str(self.file))}: is not a corrections file; expected {json.dumps(FORMAT)} in "
                "its first line. Choose another --corrections"
            )
        found = {}
        for number, row in lines:
            clip, corrected = row.get("clip"), row.get("corrected")
            if not (
                isinstance(clip, str)
                and isinstance(corrected, list)
                and all(isinstance(name, str) for name in corrected)
            ):
                raise UserError(
                    f"{printable(str(self.file))}, line {number}: expected `clip` and a list `corrected`; "
                    "correct or delete this line"
                )
            found[clip] = row
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(f"{os.fspath(self.file)}.lock")
        with self._mutex:
            try:
                lock.acquire(timeout=LOCK_SECONDS)
            except Timeout:
                raise UserError(
                    f"{printable(str(self.file))}: another process keeps it locked; repeat the correction"
                ) from None
            try:
                yield
            finally:
                lock.release()
