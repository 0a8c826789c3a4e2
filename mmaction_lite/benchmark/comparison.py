"""Processes that are measured in turns: while one works the others are stopped, so none disturbs another.

A machine that others use too is now fast, now slow. Only what ran a moment before or after can be compared,
so every round is one turn of ours and one of the other's, and their ratio is taken round by round.
"""

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

from mmaction_lite.data.loading.workers import PREFETCH
from mmaction_lite.errors import UserError
from mmaction_lite.settings import NonNegativeInt, PositiveInt, check_fields

T = TypeVar("T")
OURS, PEER = "ours", "peer"
INT8 = "int8"  # ours in 8 bits, beside all that infer in floats
TURN_SECONDS = {"cpu": 1.0, "cuda": 0.4, "mps": 0.4}
MAX_TURN_STEPS = 50
SOURCES = ("video", "frames")
PHASES = ("train", "apart", "link", "infer", *SOURCES)
# From files a step takes long, and one alone would not see the queue of decoded clips run dry.
LEAST_GPU_STEPS = 5  # the first after a pause is slower
LEAST_STEPS: dict[str, int] = dict.fromkeys(SOURCES, 2)
READ_CLIPS = 8


@dataclass(frozen=True)
class WorkerConfig:
    """How a setting is measured; what every worker is told.

    Args:
        setting: the name that the worker knows it by.
        input: clips, frames, height and width.
        batch_size: clips of a step.
        device: "cpu" or "cuda".
        threads: of PyTorch.
        precision: "float32", "bfloat16" or "float16".
        compile: a mode of `torch.compile`, or None.
        video: a data set, for training from files; None leaves that out.
        frames: its twin of JPEG frames, likewise.
        list: the data set as lines `path label`, for those who read that.
        workers: decoding processes.
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
    """Another framework beside ours.

    Args:
        name: of its folder in `.peers`.
        command: of its worker.
        setting: the name by which that knows the setting.
        precision: as in `WorkerConfig`; its own.
    """

    name: str
    command: list[str]
    setting: str
    precision: str

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


class WorkerError(Exception):
    """A worker could not do what it was asked; the message is its own."""


class Worker:
    """One process, or several that train together and are asked alike; stopped until asked.

    Args:
        command: what to start.
        config: told to it.
        log: where what it prints goes.
        number: of processes.
        folder: to start it in.
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
            env={**os.environ, **variables},
            # All are in this group with their children; should this process be killed, the system wakes the
            # group and tells it to end.
            process_group=self.processes[0].pid if self.processes else 0,
        )

    def begin(self) -> None:
        """Wait until it is built.

        Raises:
            WorkerError: it cannot be.
        """
        self.about = self._answer()
        self._signal("SIGSTOP")

    def send(self, **request: Any) -> None:
        """Let it work on a request, and do not wait; `receive` does.

        Raises:
            WorkerError: it has ended.
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
        """The answer to what was sent; of several processes the first one's.

        Raises:
            WorkerError: there is none.
        """
        try:
            return self._answer()
        finally:
            self._signal("SIGSTOP")

    def ask(self, **request: Any) -> dict[str, Any]:
        """`send`, then `receive`."""
        self.send(**request)
        return self.receive()

    def close(self) -> None:
        """End it, and its children."""
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
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended
                os.killpg(self.processes[0].pid, getattr(signal, name))
        elif name == "SIGKILL":
            for process in self.processes:
                process.kill()


def our_command() -> list[str]:
    """What starts a worker of ours."""
    return [sys.executable, "-m", "mmaction_lite.benchmark.worker"]


def find_peers(folder: Path) -> dict[str, list[str]]:
    """The commands of the peers that are installed under `folder`, by name; see `make peers`."""
    scripts = Path(__file__).parents[2] / "benchmarks" / "peers"
    found = {}
    for script in sorted(scripts.glob("worker_*.py")):
        name = script.stem.removeprefix("worker_")
        python = folder / name / "bin" / "python"
        if python.exists():
            found[name] = [str(python.absolute()), str(script)]
    return found


class Comparison:
    """Our worker and one for each peer, for one setting; a peer that fails leaves. A context manager.

    Args:
        config: what ours is told.
        peers: who else.
        folder: for logs and files that pass between processes.
        devices: processes of ours that train together.
        say: called with a line about a peer that fails.
    """

    def __init__(
        self,
        config: WorkerConfig,
        peers: Sequence[Peer],
        folder: Path,
        devices: int,
        say: Callable[[str], None],
    ):
        self.config = config
        self.peers = peers
        self.folder = folder
        self.devices = devices
        self.say = say
        self.errors: dict[str, str] = {}
        self.workers: dict[str, Worker] = {}

    def __enter__(self) -> "Comparison":
        """Start all; they build while those of other fields may."""
        try:
            self.workers[OURS] = Worker(our_command(), self.config, self.folder / "ours.log", self.devices)
            for peer in self.peers:
                self.attempt(str(peer), lambda: self._start(peer))  # noqa: B023
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()  # their numbers may soon be those of other processes

    def begin(self) -> None:
        """Wait until ours is built.

        Raises:
            UserError: it cannot be.
        """
        self.attempt(OURS, self.workers[OURS].begin)

    def begin_peers(self) -> None:
        """Wait until the peers are built."""
        for name in [name for name in self.workers if name != OURS]:
            self.attempt(name, self.workers[name].begin)
        about = {name: worker.about for name, worker in self.workers.items()}
        self.frameworks = {name: answer["framework"] for name, answer in about.items() if answer}

    def _start(self, peer: Peer) -> None:
        config = replace(self.config, setting=peer.setting, precision=peer.precision)
        log = self.folder / f"worker_{str(peer).replace(' ', '_')}.log"
        # Its script finds those beside it; the folder is its own, for what it leaves behind.
        self.workers[str(peer)] = Worker(peer.command, config, log, folder=self.folder)

    def ask(self, name: str, **request: Any) -> dict[str, Any] | None:
        """The answer of a worker, None if it has left.

        Raises:
            UserError: ours fails.
        """
        worker = self.workers.get(name)
        return self.attempt(name, lambda: worker.ask(**request)) if worker else None

    def ask_ours(self, **request: Any) -> dict[str, Any]:
        """The answer of our worker.

        Raises:
            UserError: it fails.
        """
        answer = self.ask(OURS, **request)
        assert answer is not None
        return answer

    def can(self, name: str, phase: str) -> bool:
        """Whether a worker is there and knows a phase."""
        return name in self.workers and phase in self.workers[name].about["phases"]

    def attempt(self, name: str, run: Callable[[], T]) -> T | None:
        """What `run` returns; None where it fails, and the peer `name` has left then.

        Raises:
            UserError: `name` is ours.
        """
        try:
            return run()
        except (WorkerError, OSError) as error:
            self.errors[name] = str(error)
            if name == OURS:
                raise UserError(f"{self.config.setting}: {error}") from None
            self.say(f"{self.config.setting}: {name} takes no part in what follows: {error}")
            if worker := self.workers.pop(name, None):
                worker.close()
            return None


def warm(fields: Sequence[Comparison], phases: Sequence[str]) -> None:
    """Let ours take its first steps in all fields at once: what is compiled then takes every core there is.

    What cannot be done says so when it is measured.
    """
    for phase in phases:
        asked = [field.workers[OURS] for field in fields if OURS not in field.errors]
        for worker in asked:
            with contextlib.suppress(WorkerError):
                worker.send(phase=phase, steps=3)
        for worker in asked:
            with contextlib.suppress(WorkerError):
                worker.receive()


def take_turns(field: Comparison, phase: str, rounds: int) -> dict[str, list[list[dict[str, float]]]]:
    """Steps of `phase` by worker, round and number in the turn, each with its seconds by stage.

    Inference has ours a second time, in 8 bits, where it can.

    All take as many steps in a turn: enough for the slowest to work for a second, on a GPU for less. A GPU
    that is fed first takes all batches that decoding processes hold ready, and twice as many in a turn:
    what these decode meanwhile has to suffice. Who fails is not in it.
    """
    taking = {name: (name, phase) for name in field.workers if field.can(name, phase)}
    if phase == "infer" and field.can(OURS, INT8):
        taking[INT8] = (OURS, INT8)
    device, slowest = field.config.device, 0.0
    ready = PREFETCH * field.config.workers if phase in SOURCES and device != "cpu" else 0
    for worker, what in taking.values():
        field.ask(worker, phase=what, steps=1 + ready)
        if answer := field.ask(worker, phase=what, steps=1):
            slowest = max(slowest, answer["steps"][0]["iteration"])
    least = LEAST_STEPS.get(phase, 1) if device == "cpu" else LEAST_GPU_STEPS
    steps = max(2 * ready, min(MAX_TURN_STEPS, max(least, math.ceil(TURN_SECONDS[device] / slowest))))
    steps_of: dict[str, list[list[dict[str, float]]]] = {name: [] for name in taking}
    for _ in range(rounds):
        for name, (worker, what) in taking.items():
            if answer := field.ask(worker, phase=what, steps=steps):
                steps_of[name].append([_to_microseconds(step) for step in answer["steps"]])
    return {name: steps_of[name] for name, (worker, _) in taking.items() if worker in field.workers}


def _to_microseconds(step: dict[str, float]) -> dict[str, float]:
    return {stage: round(seconds, 6) for stage, seconds in step.items()}


def measure_network(field: Comparison, rounds: int, phases: Sequence[str]) -> dict[str, Any]:
    """Steps without files, beside all peers.

    Args:
        field: has begun.
        rounds: turns of each in every phase.
        phases: "train" first; "infer", or of processes that train together, which exchange gradients in
            "train", "apart", in which they do not, and "link", in which they do nothing else.

    Returns:
        each phase with what `take_turns` returns; "memory_mib" by worker, "check" of the logits by peer,
        "stages" of our training step and "profile" of our operators.

    Raises:
        UserError: ours fails, or could not be built.
    """
    found: dict[str, Any] = {}
    if error := field.errors.get(OURS):
        raise UserError(f"{field.config.setting}: {error}")
    for phase in phases:
        found[phase] = take_turns(field, phase, rounds)
        if phase == "train":
            answers = {name: field.ask(name, phase="memory") for name in found[phase]}
            found["memory_mib"] = {
                name: round(answer["mib"], 1) for name, answer in answers.items() if answer
            }
            found["stages"] = field.ask_ours(phase="stages", steps=3)["steps"]
    found["profile"] = field.ask_ours(phase="profile", of=[p for p in phases if p in ("train", "infer")])
    # Last, for it takes memory, too.
    found["check"] = {str(peer): _check(field, str(peer)) for peer in field.peers}
    return found


def measure_feeding(field: Comparison, rounds: int, clips_per_second: float) -> dict[str, Any]:
    """Training steps from files, in turns with the peers that read them, too.

    Where there are video files and JPEG frames of the same clips, from the videos if the decoding processes
    can keep up with a network that takes `clips_per_second` and leave a quarter of the time for what else
    there is to do, from the frames otherwise.

    Returns:
        "video" or "frames", with what `take_turns` returns; "read_milliseconds" of processor time for a
        training clip, by source.
    """
    sources = [source for source in SOURCES if field.can(OURS, source)]
    read = {
        source: field.ask_ours(phase="read", source=source, clips=READ_CLIPS)["milliseconds"]
        for source in sources
    }
    cores = 0.75 * field.config.workers
    fits = [source for source in sources if clips_per_second * read[source] / 1000 <= cores]
    source = (fits or sources[-1:])[0]
    return {"read_milliseconds": read, source: take_turns(field, source, rounds)}


def rows_of(field: Comparison, found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was found, as one row for each peer, or one for ours alone, by side instead of by worker."""
    rows = []
    for name in [str(peer) for peer in field.peers] or [None]:
        sides = {OURS: OURS, INT8: INT8} | ({name: PEER} if name else {})

        def of(by_worker: dict[str, Any], sides: dict[str, str] = sides) -> dict[str, Any]:
            return {side: by_worker[who] for who, side in sides.items() if who in by_worker}

        row: dict[str, Any] = {"frameworks": of(field.frameworks)}
        row |= {what: of(value) for what, value in found.items() if what in PHASES or what == "memory_mib"}
        row |= {what: found[what] for what in ("stages", "profile", "read_milliseconds") if what in found}
        if name and found["check"][name]:
            row["check"] = found["check"][name]
        errors = [error for error in (found.get("error"), field.errors.get(name or OURS)) if error]
        if errors:
            row["error"] = "; ".join(errors)
        rows.append(row)
    return rows


def _check(field: Comparison, name: str) -> dict[str, Any] | None:
    """Whether both are the same network: how far our logits are from the peer's with the peer's weights.

    Ours run on the processor, which would take longer than all the rest beside a GPU.
    """
    if field.config.device != "cpu":
        return None
    file = field.folder / "check.pt"
    try:
        is_there = field.ask(name, phase="check", file=str(file.absolute())) is not None
        return field.ask_ours(phase="check", file=str(file.absolute())) if is_there else None
    finally:
        file.unlink(missing_ok=True)


def _ranks(number: int) -> list[dict[str, str]]:
    """What `torchrun` would tell each of several processes."""
    if number == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    alike = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    alike |= {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    return [{**alike, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]
