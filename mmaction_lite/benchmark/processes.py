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
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from mmaction_lite.errors import UserError, nearest
from mmaction_lite.settings import NonNegativeInt, PositiveInt, check_fields

PARENT = "MMACTION_LITE_BENCHMARK_PID"
"""Environment variable with the process id of the benchmark, with which its workers end."""
CHECKOUTS = {"mit_tsm": "ops/models.py", "pyslowfast": "slowfast/models/build.py"}
"""Frameworks without a package, which run from a checkout; with a file by which it is recognized."""
_SCRIPTS = (Path(__file__).parent / "peers", Path(__file__).parents[2] / "benchmarks" / "peers")
PEER_SCRIPTS = next(filter(Path.is_dir, _SCRIPTS), _SCRIPTS[0])
"""Workers and requirement lists of other frameworks: in the wheel, or beside the package in a checkout."""


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
        frames_list: list file of the folders of JPEG frames, with lines `path number_of_frames label`.
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
    frames_list: str | None = None

    def __post_init__(self):
        check_fields(self)


class InstalledPeer(NamedTuple):
    """Another framework that can be measured on this machine.

    Args:
        command: command that starts its worker.
        source: see `Peer`.
    """

    command: list[str]
    source: Path | None = None


class Peer(NamedTuple):
    """Another framework to compare with.

    Args:
        name: name of its folder in `.peers`.
        command: command that starts its worker.
        setting: name of the setting, as its worker knows it.
        precision: its precision, as in `WorkerConfig`.
        source: folder of its source code, first in the PYTHONPATH of its worker; None if it is installed.
    """

    name: str
    command: list[str]
    setting: str
    precision: str
    source: Path | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"

    @property
    def is_older_commit(self) -> bool:
        """Whether it is this package at another commit, with the same environment."""
        return self.command == our_command()


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
        source: folder to put first in PYTHONPATH; None leaves that as it is.
    """

    def __init__(
        self,
        command: list[str],
        config: WorkerConfig,
        log: Path,
        number: int = 1,
        folder: Path | None = None,
        *,
        source: Path | None = None,
    ):
        self.log = log
        self.about: dict[str, Any] = {}
        self.processes: list[subprocess.Popen[str]] = []
        try:
            with log.open("a") as file:
                for variables in _ranks(number):
                    if source is not None:
                        paths = (str(source.absolute()), os.environ.get("PYTHONPATH"))
                        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
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


def find_peers(folder: Path, sources: Mapping[str, Path]) -> dict[str, InstalledPeer]:
    """Return the other frameworks whose environments are in `folder`, by name.

    Args:
        folder: folder in which `make peers` created the environments.
        sources: checkouts of the frameworks of `CHECKOUTS`, by name; without its checkout, such a framework
            is left out.

    Raises:
        UserError: a name of `sources` is unknown, its folder is no checkout, or its environment is missing.
    """
    for name, source in sources.items():
        if name not in CHECKOUTS:
            raise UserError(f"--peer-source {name}={source}: {nearest(name, CHECKOUTS)}")
        if not (source / CHECKOUTS[name]).is_file():
            raise UserError(
                f"--peer-source {name}={source}: has no {CHECKOUTS[name]}; expected a checkout of {name}"
            )
        if not (folder / name / "bin" / "python").exists():
            raise UserError(
                f"{folder / name}: no environment for --peer-source {name}; `make peers` creates it, or "
                f"`python -m venv {folder / name}` and `pip install -r {PEER_SCRIPTS / name}.txt` in it"
            )
    found = {}
    for script in sorted(PEER_SCRIPTS.glob("worker_*.py")):
        name = script.stem.removeprefix("worker_")
        python = folder / name / "bin" / "python"
        if python.exists() and (name not in CHECKOUTS or name in sources):
            found[name] = InstalledPeer([str(python.absolute()), str(script)], sources.get(name))
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
