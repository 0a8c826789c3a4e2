"""Scores of windows in a file that grows while a long video is read, to resume an interrupted run.

The file is JSON Lines: a header with the identity of model, windows and video, then one line per window or
per unreadable part of the video, and a last line once the video is complete. A line that a killed process has
not completed is left out.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.sources.sequential import frame_times
from mmaction_lite.data.sources.source import Source
from mmaction_lite.errors import printable, reading
from mmaction_lite.files import check_replaceable, has_marker, writing
from mmaction_lite.inference.windows import WindowPlan
from mmaction_lite.weights.card import card_of
from mmaction_lite.weights.exported import ExportedModel

FORMAT = "mmaction-lite window scores 1"
SAMPLE_BYTES = 1 << 20  # at the beginning and at the end of a file, which identify it
ADVICE = "free space on the disk. The windows that are written are kept, and the same command resumes"


class Fault(NamedTuple):
    """Frames of a video that cannot be read.

    Args:
        first_frame: first of them.
        end_frame: frame after the last one.
        reason: the error.
    """

    first_frame: int
    end_frame: int
    reason: str


def identity_of_model(model: nn.Module) -> str:
    """Return the SHA-256 of the model's card and of its weights, or of the file of an exported model."""
    digest = hashlib.sha256(json.dumps(card_of(model).to_json(), sort_keys=True, default=str).encode())
    if isinstance(model, ExportedModel):
        digest.update(model.digest.encode())
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):  # any object that `get_extra_state` of a module returned
            digest.update(f"{name} {tensor}".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def identity_of_video(source: Source, path: Path | None) -> str:
    """Return the SHA-256 of frame times and size, and of size, beginning and end of the file, if it is one.

    The name of the file is no part of it, so that the file may be moved.
    """
    digest = hashlib.sha256(f"{len(source)} {source.size}".encode())
    digest.update(frame_times(source).tobytes())
    if path is not None and path.is_file():
        with reading(printable(str(path))), path.open("rb") as file:
            size = path.stat().st_size
            digest.update(f"{size}".encode())
            digest.update(file.read(SAMPLE_BYTES))
            file.seek(max(0, size - SAMPLE_BYTES))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


class WindowStore:
    """File of the scores of one video.

    Args:
        path: the file, which is created if it does not exist.

    Attributes:
        numbers: numbers of the stored windows.
        scores: float32 (K,) of each of them.
        faults: unreadable parts of the video.
        is_complete: whether all windows of the video are stored.
        note: why stored windows are not used; empty if there are none, or if they are used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = ""
        self._clear()
        check_replaceable(path, "a file of window scores of mmaction-lite", _is_ours)

    def _clear(self) -> None:
        self.numbers: list[int] = []
        self.scores: list[np.ndarray] = []
        self.faults: list[Fault] = []
        self.is_complete = False

    def open(self, model: str, plan: WindowPlan, video: str) -> None:
        """Read the stored windows, if they are those of this model, of these windows and of this video.

        Args:
            model: see `identity_of_model`.
            plan: the windows.
            video: see `identity_of_video`.

        Raises:
            UserError: the file cannot be read or written.
        """
        header = {"format": FORMAT, "model": model, "windows": repr(plan), "video": video}
        valid_bytes = self._read(header) if self.path.exists() else 0
        with writing(self.path, ADVICE):
            if valid_bytes:
                with self.path.open("r+b") as file:
                    file.truncate(valid_bytes)
            else:
                self._clear()
                self.path.write_text(json.dumps(header) + "\n", encoding="utf-8")

    def _read(self, header: dict[str, Any]) -> int:
        """Read the file; return the length in bytes of its complete lines, 0 if they cannot be used."""
        with reading(printable(str(self.path))), self.path.open("rb") as file:
            try:
                found = json.loads(file.readline())
                differing = [key for key in header if found[key] != header[key]]
            except (ValueError, LookupError, TypeError, RecursionError):
                self.note = f"{self.path}: is damaged, so its windows are computed again"
                return 0
            if differing:
                other = " and ".join(differing)
                self.note = f"{self.path}: holds windows of another {other}, so they are computed again"
                return 0
            place = file.tell()
            for line in file:
                if not line.endswith(b"\n") or not self._add_line(line):
                    break
                place += len(line)
        return place

    def _add_line(self, line: bytes) -> bool:
        """Add what a line of the file holds; return whether the line is valid."""
        try:
            row = json.loads(line)
            if row.get("complete"):
                self.is_complete = True
            elif "fault" in row:
                self.faults.append(Fault(int(row["first"]), int(row["end"]), str(row["fault"])))
            else:
                scores = np.frombuffer(base64.b64decode(row["scores"], validate=True), "<f4")
                if self.scores and len(scores) != len(self.scores[0]):
                    return False
                if self.numbers and row["number"] <= self.numbers[-1]:
                    return False
                self.scores.append(scores)
                self.numbers.append(int(row["number"]))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return False
        return True

    def append(self, numbers: Iterable[int], scores: Iterable[np.ndarray]) -> None:
        """Write windows to the end of the file."""
        self._write(
            {"number": number, "scores": base64.b64encode(row.astype("<f4").tobytes()).decode()}
            for number, row in zip(numbers, scores, strict=True)
        )

    def append_fault(self, fault: Fault) -> None:
        """Write an unreadable part of the video to the end of the file."""
        self._write([{"fault": fault.reason, "first": fault.first_frame, "end": fault.end_frame}])

    def complete(self) -> None:
        """Write that all windows are stored."""
        self._write([{"complete": True}])

    def _write(self, rows: Iterable[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        with writing(self.path, ADVICE), self.path.open("ab") as file:
            file.write(text.encode())


def _is_ours(path: Path) -> bool:
    return path.stat().st_size == 0 or has_marker(FORMAT.encode())(path)
