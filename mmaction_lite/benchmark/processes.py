"""Worker processes of the benchmark: start, requests and answers, suspension.

A worker is suspended (SIGSTOP) while it has no request, so that it does not disturb the measurement of
others. Requests and answers are JSON objects, one per line, over standard input and output.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from mmaction_lite.settings import NonNegativeInt, PositiveInt, check_fields

PARENT = "MMACTION_LITE_BENCHMARK_PID"
"""Environment variable with the process id of the benchmark, with which its workers end."""


@dataclass(frozen=True)
class WorkerConfig:
    """Options of a worker.

    Args:
        setting: name of the setting, as the worker knows it.
        input: batch size, frames, height and width of a clip.
        batch_size: batch size of the worker.
        device: "cpu", "cuda" or "mps".
        threads: number of threads of PyTorch.
        precision: "float32", "bfloat16" or "float16".
        compile: mode of `torch.compile`; None does not compile.
        video: dataset of video files to train from; None: no such measurement.
        frames: the same dataset as JPEG frames; None: no such measurement.
        list: list file of the dataset with lines `path label`, for workers that read one.
        workers: number of decoding worker processes.
    """

    setting: str
    input: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    batch_size: PositiveInt
    device: str
    threads: PositiveInt
    precision: str
    compile: str | None
    video: str | None
    frames: str | None
    list: str | None
    workers: NonNegativeInt

    def __post_init__(self):
        check_fields(self)


class Peer(NamedTuple):
    """Another framework to compare with.

    Args:
        name: name of its folder in `.peers`.
        command: command that starts its worker.
        setting: name of the setting, as its worker knows it.
        precision: its precision, as in `WorkerConfig`.
    """

    name: str
    command: list[str]
    setting: str
    precision: str

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


class WorkerError(Exception):
    """A worker failed; the message comes from the worker."""


class Worker:
    """One process, or several of a distributed training that receive the same requests.

    Args:
        command: command of the process; the options are appended as JSON.
        config: options.
        log: file for its standard error.
        number: number of processes.
        folder: working directory; None: the current one.
    """

    def __init__(
        self, command: list[str], config: WorkerConfig, log: Path, number: int = 1, folder: Path | None = None
    ):
        self.log = log
        self.about: dict[str, Any] = {}
        self.processes: list[subprocess.Popen[str]] = []
        try:
            with log.open("a") as file:
                for variables in _ranks(number):
                    self.processes.append(
                        self._start([*command, json.dumps(asdict(config))], variables, file, folder)
                    )
        except BaseException:
            self.close()
            raise

    def _start(
        self, command: list[str], variables: dict[str, str], log: TextIO, folder: Path | None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env={**os.environ, PARENT: str(os.getpid()), **variables},
            # All processes and their children form one group. If this process is killed, the system resumes
            # the orphaned group and ends it (SIGHUP).
            process_group=self.processes[0].pid if self.processes else 0,
        )

    def begin(self) -> None:
        """Wait until the worker has built its network.

        Raises:
            WorkerError: it failed.
        """
        self.about = self._answer()
        self._signal("SIGSTOP")

    def send(self, **request: Any) -> None:
        """Resume the worker and send a request; `receive` waits for the answer.

        Raises:
            WorkerError: the worker has ended.
        """
        self._signal("SIGCONT")
        try:
            for process in self.processes:
                assert process.stdin is not None
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
        except OSError:
            raise WorkerError(f"it ended; see {self.log}") from None

    def receive(self) -> dict[str, Any]:
        """Return the answer to the last request, from rank 0 of several processes, and suspend the worker.

        Raises:
            WorkerError: the worker failed or has ended.
        """
        try:
            return self._answer()
        finally:
            self._signal("SIGSTOP")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return its answer."""
        self.send(**request)
        return self.receive()

    def close(self) -> None:
        """Kill the worker and its child processes."""
        self._signal("SIGKILL")
        for process in self.processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _answer(self) -> dict[str, Any]:
        lines = [process.stdout.readline() for process in self.processes if process.stdout is not None]
        if not all(lines):
            raise WorkerError(f"it ended; see {self.log}")
        answers = [json.loads(line) for line in lines]
        for answer in answers:
            if "error" in answer:
                raise WorkerError(answer["error"])
        return answers[0]

    def _signal(self, name: str) -> None:
        if hasattr(os, "killpg") and self.processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the worker has ended
                os.killpg(self.processes[0].pid, getattr(signal, name))
        elif name == "SIGKILL":
            for process in self.processes:
                process.kill()


def our_command() -> list[str]:
    """Return the command of the worker of this package."""
    return [sys.executable, "-m", "mmaction_lite.benchmark.worker"]


def find_peers(folder: Path) -> dict[str, list[str]]:
    """Return the commands of the other frameworks installed in `folder` by `make peers`, by name."""
    scripts = Path(__file__).parents[2] / "benchmarks" / "peers"
    found = {}
    for script in sorted(scripts.glob("worker_*.py")):
        name = script.stem.removeprefix("worker_")
        python = folder / name / "bin" / "python"
        if python.exists():
            found[name] = [str(python.absolute()), str(script)]
    return found


def _ranks(number: int) -> list[dict[str, str]]:
    """Return the environment variables with which `torchrun` would start each of `number` processes."""
    if number == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    alike = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    alike |= {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    return [{**alike, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]
