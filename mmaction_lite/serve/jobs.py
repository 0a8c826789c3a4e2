"""Jobs: work that takes longer than a request. A client starts a job, follows it, and fetches its results.

    queued ──► running ──► done        results are kept for a limited time
       │          ├──────► failed      with a problem
       └──────────┴──────► cancelled

Jobs run in threads. Their number, the number of kept results, and their time are limited. The identifier of
a job is random, so that only the client that started it knows it.
"""

import logging
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mmaction_lite.serve.metrics import LOGGER, locate_error
from mmaction_lite.serve.problems import Problem, as_problem

State = Literal["queued", "running", "done", "failed", "cancelled"]

RUNNING_JOBS = 2  # at the same time: a job whose video hangs does not delay the next one
MOST_FORGOTTEN = 1000  # identifiers of expired jobs that are still recognized
RETRY_SECONDS = 10  # after which a client may start a job again


class JobLimits(NamedTuple):
    """Limits of all jobs.

    Args:
        max_jobs: jobs that are queued or running.
        max_results: jobs that have ended and whose results are kept; the oldest is forgotten first.
        job_seconds: time limit of a job, from its start.
        result_seconds: how long a job is kept after its end.
    """

    max_jobs: int
    max_results: int
    job_seconds: float
    result_seconds: float


class CancelledJobError(Exception):
    """The job was cancelled; raised inside of its work."""


class Job:
    """A job and its state. Threads and the event loop read it at the same time.

    Args:
        folder: private folder of its files, which is deleted with the job.
        video: the video, in the folder or elsewhere.

    Attributes:
        id: random identifier.
        state: see the top of the module.
        done: units of work that are done, such as windows.
        total: all units of work; 0 as long as it is not known.
        problem: why it failed; None otherwise.
        value: what its work has produced so far.
    """

    def __init__(self, folder: Path, video: Path) -> None:
        self.id = secrets.token_urlsafe(18)
        self.folder, self.video = folder, video
        self.state: State = "queued"
        self.done = self.total = 0
        self.problem: Problem | None = None
        self.value: Any = None
        self.ended_at: float | None = None
        self.deadline: float | None = None
        self.stop = threading.Event()

    @property
    def has_ended(self) -> bool:
        """Whether the state does not change anymore."""
        return self.state in ("done", "failed", "cancelled")

    def report(self, done: int, total: int) -> None:
        """Record the progress; the work calls it often, because it also ends a job.

        Raises:
            CancelledJobError: the job was cancelled.
            Problem: the job takes too long.
        """
        self.check()
        self.done, self.total = done, total

    def check(self) -> None:
        """Check that the work may continue; see `report`."""
        if self.stop.is_set():
            raise CancelledJobError
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise Problem("job-timeout")

    def to_json(self) -> dict[str, Any]:
        """Return the state for clients."""
        problem = {} if self.problem is None else {"problem": self.problem.to_json()}
        return {"id": self.id, "state": self.state, "done": self.done, "total": self.total} | problem


class Jobs:
    """All jobs of a server.

    Args:
        limits: limits of all jobs.
        clock: returns the time in seconds, which never goes back.
    """

    def __init__(self, limits: JobLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.RLock()
        self._threads = ThreadPoolExecutor(RUNNING_JOBS, "job")
        self._is_closed = False

    def start(self, folder: Path, video: Path, work: Callable[[Job], None]) -> Job:
        """Queue a job. If it is refused, its folder is deleted.

        Args:
            folder: private folder of its files.
            video: the video, in the folder or elsewhere.
            work: does the work, and reports the progress to the job; runs in a thread.

        Raises:
            Problem: too many jobs are queued or running, or the server shuts down.
        """
        job = Job(folder, video)
        try:
            self.expire()
            with self._lock:
                if self._is_closed:
                    raise Problem("shutting-down")
                if self.num_unfinished >= self._limits.max_jobs:
                    raise Problem(
                        "busy",
                        f"{self._limits.max_jobs} jobs are queued or running",
                        headers={"Retry-After": str(RETRY_SECONDS)},
                    )
                self._jobs[job.id] = job
                self._threads.submit(self._run, job, work)
        except BaseException:
            _delete(folder)
            raise
        return job

    def get(self, number: str) -> Job:
        """Return a job by its identifier.

        Raises:
            Problem: there is no such job, or it has expired.
        """
        self.expire()
        with self._lock:
            if number in self._jobs:
                return self._jobs[number]
            is_known = number in self._forgotten
        raise (
            Problem("gone", "the job has expired")
            if is_known
            else Problem("not-found", "there is no such job")
        )

    def cancel(self, number: str) -> Job:
        """Cancel a job that is queued or running, or forget one that has ended; return its state.

        Raises:
            Problem: see `get`.
        """
        job = self.get(number)
        with self._lock:
            job.stop.set()
            if job.has_ended:
                self._forget(job)
            else:
                is_queued = job.state == "queued"
                self._end(job, "cancelled")
                if is_queued:  # the files of a running job are deleted when its thread has ended
                    _delete(job.folder)
        return job

    @property
    def num_unfinished(self) -> int:
        """Number of jobs that are queued or running."""
        with self._lock:
            return sum(not job.has_ended for job in self._jobs.values())

    def expire(self) -> None:
        """Forget the jobs that ended long ago, and the oldest ones if there are too many."""
        with self._lock:
            ended = [job for job in self._jobs.values() if job.ended_at is not None]
            ended.sort(key=lambda job: job.ended_at or 0.0)
            oldest = self._clock() - self._limits.result_seconds
            surplus = max(0, len(ended) - self._limits.max_results)
            for position, job in enumerate(ended):
                if position < surplus or (job.ended_at or 0.0) < oldest:
                    self._forget(job)

    def close(self) -> None:
        """Cancel all jobs, wait for their threads, and delete their files."""
        with self._lock:
            self._is_closed = True
            jobs = list(self._jobs.values())
            for job in jobs:
                job.stop.set()
        self._threads.shutdown(cancel_futures=True)
        for job in jobs:
            _delete(job.folder)

    def _run(self, job: Job, work: Callable[[Job], None]) -> None:
        with self._lock:
            is_cancelled = job.has_ended  # in the queue
            if not is_cancelled:
                job.state, job.deadline = "running", time.monotonic() + self._limits.job_seconds
        if is_cancelled:
            _delete(job.folder)
            return
        try:
            work(job)
        except CancelledJobError:
            state, problem = "cancelled", None
        except BaseException as error:
            state, problem = "failed", as_problem(error) if isinstance(error, Exception) else None
            if not isinstance(error, Problem):
                logging.getLogger(LOGGER).error("unexpected %s", locate_error(error))
        else:
            state, problem = "done", None
        with self._lock:
            if not job.has_ended:
                self._end(job, state, problem)
        if job.state != "done":
            _delete(job.folder)

    def _end(self, job: Job, state: State, problem: Problem | None = None) -> None:
        job.problem, job.ended_at = problem, self._clock()
        job.state = state  # last: it announces the others

    def _forget(self, job: Job) -> None:
        """Forget a job and delete its files. Call it with the lock."""
        self._jobs.pop(job.id, None)
        self._forgotten[job.id] = None
        while len(self._forgotten) > MOST_FORGOTTEN:
            self._forgotten.popitem(last=False)
        _delete(job.folder)


def _delete(folder: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(folder)
