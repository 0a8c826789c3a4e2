"""Capture the frames of a camera, a network stream or a file in a thread.

The thread puts frames into a queue of limited length. While the model is busy and the queue is full, each
further frame replaces the oldest one, so the frames in the queue are always the latest:

    source ──► thread: decode, wait until due ──► queue, drops the oldest ──► `next_frame`

A lost connection is opened again. The frames between two interruptions form a part, and every frame names its
part: windows never contain frames of two parts.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import av
import numpy as np
from av.error import ExitError, FFmpegError

from mmaction_lite.data.sources.live import CaptureSettings, OpenStream, open_live, parse_address
from mmaction_lite.data.sources.orientation import UprightPixels
from mmaction_lite.data.sources.sequential import frame_times, read_in_order
from mmaction_lite.data.sources.source import Source, open_source
from mmaction_lite.data.sources.stream_clock import Before, StreamClock
from mmaction_lite.data.sources.video import DEFAULT_FPS
from mmaction_lite.errors import UserError, VideoError, describe, printable

# The frames in the queue take this many bytes at most: 80 frames of 1080p video.
QUEUE_BYTES = 256 << 20
# Pauses before the attempts to reconnect: the first one, and the longest one, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# A connection that delivers frames for this long resets the number of attempts and the pause.
STABLE_SECONDS = 10.0
# Frames and seconds from which the rate of a stream without a stated rate is measured.
RATE_FRAMES, RATE_SECONDS = 50, 2.0


class LiveFrame(NamedTuple):
    """A captured frame.

    Args:
        part: number of the uninterrupted part of the stream.
        before: how the part before ended: "start", there is none; "end", the file or recording ended;
            "loss", the connection or the times were interrupted.
        number: of the frame in its part, also counting dropped frames.
        seconds: stream time: 0 is the first frame. It continues during interruptions.
        part_seconds: time after the first frame of the part.
        fps: frames per second of the part.
        arrival: `time.monotonic()` when the frame was captured.
        wall_time: `time.time()` when the frame was captured.
        picture: the decoded frame, or uint8 (H, W, 3) RGB; see `Capture.pixels`.
    """

    part: int
    before: Before
    number: int
    seconds: float
    part_seconds: float
    fps: float
    arrival: float
    wall_time: float
    picture: av.VideoFrame | np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes of the picture, about."""
        if isinstance(self.picture, np.ndarray):
            return self.picture.nbytes
        return self.picture.width * self.picture.height * 2


class Counts(NamedTuple):
    """What happened since the start of a capture.

    Args:
        frames: captured frames, including the dropped ones.
        dropped: frames that were dropped, because the queue was full.
        reconnects: connections after the first one.
        gaps: interruptions of the time stamps of a connected stream.
        most_waiting: largest number of frames in the queue.
    """

    frames: int = 0
    dropped: int = 0
    reconnects: int = 0
    gaps: int = 0
    most_waiting: int = 0


class Capture:
    """Frames of a camera, a network stream or a file, captured in a thread. Use it in a `with` statement.

    The thread starts with the `with` statement, or with the first call of `next_frame`.

    Args:
        source: see `parse_address`.
        settings: how to capture.

    Attributes:
        name: the source for messages, without a password.
        notes: lines about lost connections, for the user.

    Raises:
        UserError: the address or a setting does not fit the source.
    """

    def __init__(self, source: str | int | Path, settings: CaptureSettings | None = None) -> None:
        self.settings = settings or CaptureSettings()
        self.address = parse_address(source)
        self.name = self.address.name
        self.notes: SimpleQueue[str] = SimpleQueue()
        self._check_settings()
        self._queue: deque[LiveFrame] = deque()
        self._bytes = 0
        self._counts = Counts()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._is_done = False
        self._sign_of_life = time.monotonic()
        self._sign_of_delivery = 0.0
        self._thread = threading.Thread(target=self._run, name=f"capture {self.name}", daemon=True)
        self._upright = UprightPixels(self.name)

    def __enter__(self) -> "Capture":
        self._start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the capture. A thread that waits for a server ends after the time limit, in the background."""
        self._stop.set()
        with self._changed:
            self._queue.clear()
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(0.5)

    @property
    def counts(self) -> Counts:
        """What happened since the start."""
        return self._counts

    @property
    def waiting(self) -> int:
        """Number of frames in the queue."""
        return len(self._queue)

    @property
    def is_lossless(self) -> bool:
        """Whether the source waits for the model, so that no frame is dropped."""
        return self.settings.speed == 0 and self.address.kind != "device"

    def next_frame(self, wait: float) -> LiveFrame | None:
        """Return the oldest frame of the queue; None if there is none within `wait` seconds, or at the end.

        Raises:
            UserError: the source cannot be opened, or is lost and all attempts to reconnect failed.
        """
        self._start()
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_done or self._stop.is_set(), wait)
            if self._queue:
                frame = self._queue.popleft()
                self._bytes -= frame.nbytes
                self._changed.notify_all()
                return frame
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        silent = time.monotonic() - self._sign_of_life
        if not self.is_over and silent > 3 * self.settings.timeout + 5:
            raise VideoError(f"{self.name}: its driver or the name server does not answer; restart it")
        return None

    @property
    def is_over(self) -> bool:
        """Whether no frame and no error follows."""
        return (self._is_done or self._stop.is_set()) and not self._queue and self._error is None

    def pixels(self, frame: LiveFrame) -> np.ndarray:
        """Return the upright RGB pixels of a frame, uint8 (H, W, 3), valid until the next call."""
        if isinstance(frame.picture, np.ndarray):
            return frame.picture
        return self._upright(frame.picture)

    def _check_settings(self) -> None:
        kind, settings = self.address.kind, self.settings
        if settings.loop and kind != "file":
            raise UserError(f"{self.name}: only a file can be played in a loop; leave --loop out")
        if settings.speed != 1 and kind == "device":
            raise UserError(f"{self.name}: a camera has one speed; leave --speed out")
        if settings.speed != 1 and kind == "network" and not self.address.is_paced:
            raise UserError(f"{self.name}: a live stream has one speed; leave --speed out")
        if settings.size is not None and kind != "device":
            raise UserError(f"{self.name}: only a camera has a --size; leave it out")

    def _start(self) -> None:
        if self._thread.ident is None and not self._stop.is_set():
            self._sign_of_life = time.monotonic()
            self._thread.start()

    def _run(self) -> None:
        """Capture until the end; the thread."""
        try:
            if self.address.kind == "file":
                self._play_file()
            else:
                self._follow()
        except UserError as error:
            self._error = error
        except BaseException as error:  # raised by `next_frame` in the thread of the caller
            self._error = VideoError(f"{self.name}: cannot be read ({describe(error)}); open it again")
        finally:
            with self._changed:
                self._is_done = True
                self._changed.notify_all()

    def _put(self, frame: LiveFrame) -> None:
        """Add a frame to the queue, and drop the oldest ones or wait while it is full."""
        self._sign_of_life = time.monotonic()
        with self._changed:
            if self.is_lossless:
                while self._is_full(frame) and not self._stop.is_set():
                    self._changed.wait(0.2)
                    self._sign_of_life = time.monotonic()
            if self._stop.is_set():
                return
            dropped = 0
            while self._is_full(frame):
                self._bytes -= self._queue.popleft().nbytes
                dropped += 1
            self._queue.append(frame)
            self._bytes += frame.nbytes
            counts = self._counts
            self._counts = counts._replace(
                frames=counts.frames + 1,
                dropped=counts.dropped + dropped,
                most_waiting=max(counts.most_waiting, len(self._queue)),
            )
            self._changed.notify_all()

    def _is_full(self, frame: LiveFrame) -> bool:
        is_large = self._bytes + frame.nbytes > QUEUE_BYTES
        return bool(self._queue) and (len(self._queue) >= self.settings.queue_frames or is_large)

    def _wait_until(self, moment: float) -> None:
        while not self._stop.is_set() and (left := moment - time.monotonic()) > 0:
            self._sign_of_life = time.monotonic()
            self._stop.wait(min(left, 1.0))

    def _play_file(self) -> None:
        with open_source(Path(self.address.location)) as source:
            fps, times = self._file_times(source)
            begin = offset = 0.0
            part = 0
            while not self._stop.is_set():
                start = time.monotonic()
                if part == 0:
                    begin = start
                for number, pixels in read_in_order(source, np.arange(len(times)), on_fault=self._note):
                    if pixels is None:  # a damaged frame counts as a dropped one
                        continue
                    seconds = float(times[number])
                    if self.settings.speed:
                        self._wait_until(begin + (offset + seconds) / self.settings.speed)
                    if self._stop.is_set():
                        return
                    now = (time.monotonic(), time.time())
                    before = "end" if part else "start"
                    self._put(
                        LiveFrame(part, before, number, offset + seconds, seconds, fps, *now, pixels.copy())
                    )
                if not self.settings.loop:
                    return
                part, offset = part + 1, offset + float(times[-1]) + 1 / fps

    def _note(self, error: VideoError, first: int, end: int) -> None:
        self.notes.put(f"{error} (frames {first} to {end - 1} are left out)")

    def _file_times(self, source: Source) -> tuple[float, np.ndarray]:
        """Return the frame rate of a file and the times of its frames."""
        if self.settings.fps is not None:
            return self.settings.fps, np.arange(len(source)) / self.settings.fps
        if not source.fps > 0:
            raise VideoError(f"{self.name}: states no frame rate; pass it as --fps")
        return source.fps, frame_times(source)

    def _follow(self) -> None:
        """Read a camera or a network stream, and open it again whenever it is lost."""
        settings = self.settings
        clock = StreamClock(
            max_gap=settings.max_gap,
            speed=settings.speed,
            is_paced=self.address.is_paced,
            queue_frames=settings.queue_frames,
        )
        attempts, lost = 0, 0.0
        while not self._stop.is_set():
            connected = self._sign_of_life = time.monotonic()
            try:
                if self._read_connection(clock, lost):
                    return
                problem = "the stream ended"
            except VideoError as error:
                if clock.part < 0:  # it was never connected
                    raise
                problem = str(error).removeprefix(f"{self.name}: ")
            is_delivering = self._sign_of_delivery > connected
            if is_delivering:
                lost = self._sign_of_delivery
                attempts = 0 if lost - connected >= STABLE_SECONDS else attempts
            if attempts >= settings.retries:
                raise VideoError(
                    f"{self.name}: connection lost ({problem}), {attempts} attempts to connect again; "
                    "check the source, or raise --retries"
                )
            if is_delivering:
                self.notes.put(f"{self.name}: connection lost ({problem}); connecting again")
            clock.interrupt("loss")
            pause = min(FIRST_PAUSE * 2 ** min(attempts, 10), LONGEST_PAUSE)
            attempts += 1
            # Programs that lose one camera at the same moment must not all connect at the same moment.
            self._wait_until(time.monotonic() + pause * random.uniform(0.8, 1.0))

    def _read_connection(self, clock: StreamClock, lost: float) -> bool:
        """Open the source and capture its frames until the connection ends.

        Args:
            clock: the times of the stream.
            lost: when the connection before was lost; 0 if there was none.

        Returns:
            Whether nothing follows: the recording ended, or the capture was stopped.

        Raises:
            VideoError: the source cannot be opened, sends no frame in time, or the connection is lost.
        """
        with open_live(self.address, self.settings) as opened:
            is_new = True
            for stamp, arrival, picture in self._timed(opened, clock):
                if is_new and lost:
                    self.notes.put(f"{self.name}: connected again after {arrival - lost:.1f} s")
                    self._counts = self._counts._replace(reconnects=self._counts.reconnects + 1)
                is_new = False
                place = clock.place(stamp, arrival)
                if place.due > arrival:
                    self._wait_until(place.due)
                    arrival = time.monotonic()
                if self._stop.is_set():
                    return True
                self._put(LiveFrame(*place[:-1], clock.fps, arrival, time.time(), picture))
                self._counts = self._counts._replace(gaps=clock.gaps)
                self._sign_of_delivery = time.monotonic()
            if is_new:
                raise self._lost("it sends no frame")
            return opened.is_recording

    def _timed(
        self, opened: OpenStream, clock: StreamClock
    ) -> Iterator[tuple[float | None, float, av.VideoFrame]]:
        """Yield time stamp, arrival and picture of the frames of a connection; set the rate of the clock."""
        settings = self.settings
        rate = settings.fps or opened.fps
        clock.fps = rate or clock.fps
        first: list[tuple[float | None, float, av.VideoFrame]] = []
        try:
            for number, (arrival, picture) in enumerate(self._arriving(opened)):
                stamp = picture.time if opened.is_timed else None
                if stamp is None and settings.fps is not None:
                    stamp = number / settings.fps
                first.append((stamp, arrival, picture))
                is_measured = len(first) >= RATE_FRAMES or arrival - first[0][1] >= RATE_SECONDS
                if rate is None and is_measured and len(first) > 1:
                    rate = clock.fps = measured_rate([arrival for _, arrival, _ in first])
                if rate is not None:
                    yield from first
                    first.clear()
        except VideoError:
            if rate is None and first:  # the connection was lost before the rate was known
                clock.fps = measured_rate([arrival for _, arrival, _ in first])
                yield from first
            raise
        yield from first

    def _arriving(self, opened: OpenStream) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield the arrival and the picture of each frame of a connection."""
        latest = time.monotonic()
        try:
            for picture in opened.pictures():
                now = time.monotonic()
                if self._stop.is_set():
                    return
                if picture is not None:
                    yield now, picture
                    latest = time.monotonic()
                elif now - latest > self.settings.timeout:
                    raise self._lost(f"no frame within {self.settings.timeout:g} s")
        except ExitError:
            raise self._lost(f"no data within {self.settings.timeout:g} s") from None
        except FFmpegError as error:
            raise self._lost(error.strerror or type(error).__name__) from None

    def _lost(self, problem: str) -> VideoError:
        advice = "" if self._counts.frames else "; check the address"
        return VideoError(f"{self.name}: {printable(problem)}{advice}")


def measured_rate(seconds: list[float]) -> float:
    """Return the frame rate of frames at these times; 25 if it cannot be measured."""
    span = seconds[-1] - seconds[0]
    rate = (len(seconds) - 1) / span if span > 0 else 0.0
    return rate if 0.1 <= rate <= 1000 else DEFAULT_FPS
