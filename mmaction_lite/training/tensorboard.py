"""Event files of TensorBoard, on a disk that may become full."""

import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from mmaction_lite.errors import UserError
from mmaction_lite.files import writing

RESUMABLE = "free space on the disk; the same command with --resume continues the run"
FLUSH_SECONDS = 10.0  # after which a new value is visible in TensorBoard


class TensorBoard:
    """Writer of scalars to an event file in the run folder.

    It writes in the calling thread: the writer thread of `tensorboardX.SummaryWriter` ends with a traceback
    when the disk is full, and a later call then waits for it forever.

    Args:
        out: run folder.
        purge_step: TensorBoard hides the values of an interrupted run from this step on.
        write_to_disk: whether this process writes.
    """

    def __init__(self, out: Path, purge_step: int, write_to_disk: bool):
        self._file: EventsWriter | None = None
        self._name = out / "events.out.tfevents"
        self._error: UserError | None = None
        self._flushed = 0.0
        if write_to_disk:
            with writing(out, RESUMABLE):
                out.mkdir(parents=True, exist_ok=True)
                self._file = EventsWriter(str(out / "events"))
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Add one value of a curve.

        Raises:
            UserError: this value or an earlier one could not be written.
        """
        if self._file is not None:
            self._write(step=global_step, summary=scalar(tag, scalar_value))

    def close(self) -> None:
        """Write everything that is buffered.

        Raises:
            UserError: a value could not be written.
        """
        file, self._file = self._file, None
        if file is not None:
            with writing(self._name, RESUMABLE):
                file.close()
        if self._error is not None:
            raise self._error

    def _write(self, **fields: Any) -> None:
        """Append an event to the file."""
        assert self._file is not None
        if self._error is not None:
            raise self._error
        try:
            with writing(self._name, RESUMABLE):
                self._file.write_event(Event(wall_time=time.time(), **fields))
                if time.monotonic() > self._flushed + FLUSH_SECONDS:
                    self._file.flush()
                    self._flushed = time.monotonic()
        except UserError as error:
            self._error = error
            raise
