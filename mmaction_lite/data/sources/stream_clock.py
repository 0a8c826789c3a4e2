"""Times of the frames of a live stream: stream time, interruptions, and when a frame is due.

Time stamps of streams begin anywhere, jump, and restart after a lost connection. `StreamClock` converts them
to a stream time that begins at 0 and never decreases. It also divides the stream into parts: windows of
frames never contain frames of two parts.
"""

from typing import Literal, NamedTuple

# Frames of a server that sends faster than real time wait until this many seconds before they are due.
SLACK_SECONDS = 0.5
# Later frames than this are not caught up: the stream continues from there.
LATE_SECONDS = 1.0
# The clock runs faster by this fraction, so that a camera with a faster clock adds no delay in the end.
DRIFT = 1e-3
# Time stamps that go back by less than this are out of order; the frame counts as simultaneous.
DISORDER_SECONDS = 1.0
# At low frame rates, this many missing frames are no gap.
GAP_FRAMES = 4

Before = Literal["start", "end", "loss"]


class Place(NamedTuple):
    """Place of a frame in the stream; times in seconds.

    Args:
        part: number of the uninterrupted part.
        before: how the part before ended: "start", there is none; "end", the recording ended; "loss", the
            connection or the times were interrupted.
        number: of the frame in its part.
        seconds: stream time: 0 is the first frame. It continues during interruptions.
        part_seconds: time after the first frame of the part.
        due: when to show the frame, as `time.monotonic()`; not after the arrival if it need not wait.
    """

    part: int
    before: Before
    number: int
    seconds: float
    part_seconds: float
    due: float


class StreamClock:
    """Place the frames of a stream in time.

    Args:
        max_gap: longest difference between the time stamps of frames of one part, in seconds.
        speed: relative to real time; 0: every frame is due when it arrives.
        is_paced: whether frames that arrive too early wait.
        queue_frames: length of the queue that the frames of `SLACK_SECONDS` must fit in.

    Attributes:
        fps: frames per second; set it before the first frame of a connection.
        part: number of the current part; -1 before the first frame.
        gaps: interruptions inside of connections.
    """

    def __init__(self, *, max_gap: float, speed: float, is_paced: bool, queue_frames: int) -> None:
        self.fps = 25.0
        self.part, self.gaps = -1, 0
        self._max_gap, self._speed, self._is_paced = max_gap, speed, is_paced and speed > 0
        self._queue_frames = queue_frames
        self._is_new = True
        self._before: Before = "start"
        self._number = 0
        self._first_stamp = self._stamp = 0.0
        self._begin = self._seconds = 0.0  # stream time of the first and of the last frame of the part
        self._arrival = 0.0
        self._anchor = 0.0  # arrival that corresponds to the begin of the part

    def interrupt(self, before: Before) -> None:
        """Let the next frame begin a part."""
        self._is_new = True
        if self.part >= 0:
            self._before = before

    def place(self, stamp: float | None, arrival: float) -> Place:
        """Return the place of the next frame.

        Args:
            stamp: its time stamp in seconds; None: it has none, and its arrival counts.
            arrival: `time.monotonic()` when it was decoded.
        """
        time = arrival if stamp is None else stamp
        step = 0.0 if self._is_new else time - self._stamp
        limit = max(self._max_gap, GAP_FRAMES / self.fps)
        if not self._is_new and not -DISORDER_SECONDS <= step <= limit:
            self.gaps += 1
            self.interrupt("loss")
        if self._is_new:
            elapsed = step if step > 0 else (arrival - self._arrival) * self._speed
            self._begin = 0.0 if self.part < 0 else self._seconds + max(1 / self.fps, elapsed)
            self.part, self._number, self._is_new = self.part + 1, 0, False
            self._first_stamp = time
            self._seconds, self._anchor = self._begin, arrival
        else:
            self._number += 1
            self._seconds = max(self._seconds, self._begin + time - self._first_stamp)
        self._stamp = time
        due = self._due(arrival)
        self._arrival = max(arrival, due)
        passed = self._seconds - self._begin
        return Place(self.part, self._before, self._number, self._seconds, passed, due)

    def _due(self, arrival: float) -> float:
        if not self._is_paced:
            return arrival
        due = self._anchor + (self._seconds - self._begin) / self._speed * (1 - DRIFT)
        if arrival > due + LATE_SECONDS:
            self._anchor += arrival - due
            due = arrival
        slack = min(SLACK_SECONDS, self._queue_frames / 2 / self.fps)
        return due - slack / self._speed
