"""Event files of TensorBoard, on a disk that may become full."""

from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from mmaction_lite.files import writing

RESUMABLE = "free space on the disk; the same command with --resume continues the run"


class TensorBoard:
    """Writer of scalars to an event file in the run folder.

    A thread of tensorboardX writes the file. An OSError would end the thread with a traceback, and a later
    call would wait for the thread forever. Errors are therefore kept, and raised by the next call.

    Args:
        out: run folder.
        purge_step: TensorBoard hides the values of an interrupted run from this step on.
        write_to_disk: whether this process writes.
    """

    def __init__(self, out: Path, purge_step: int, write_to_disk: bool):
        self.out = out
        with writing(out, RESUMABLE):
            self._writer = SummaryWriter(str(out), purge_step=purge_step, write_to_disk=write_to_disk)
        self._events: _Events | None = None
        if write_to_disk:
            files: Any = self._writer.file_writer
            files = files.event_writer
            self._events = _Events(files._ev_writer)
            files._ev_writer = files._worker._record_writer = self._events

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Add one value of a curve.

        Raises:
            UserError: an earlier value could not be written.
        """
        self._check()
        self._writer.add_scalar(tag, scalar_value, global_step)

    def close(self) -> None:
        """Write everything that is buffered.

        Raises:
            UserError: a value could not be written.
        """
        self._writer.close()
        self._check()

    def _check(self) -> None:
        if self._events is not None and self._events.error is not None:
            with writing(self.out / "events.out.tfevents", RESUMABLE):
                raise self._events.error


class _Events:
    """Replacement of tensorboardX's writer of one event file, which keeps the first OSError."""

    def __init__(self, writer: Any):
        self._writer = writer
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._writer, name)

        def call(*arguments: Any) -> Any:
            if self.error is not None and name != "close":
                return None
            try:
                return method(*arguments)
            except OSError as error:
                self.error = self.error or error
                return None

        return call
