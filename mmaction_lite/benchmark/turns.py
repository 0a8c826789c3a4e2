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
from typing import Any, NamedTuple, TypeVar

from mmaction_lite.errors import UserError

T = TypeVar("T")
OURS, PEER = "ours", "peer"
TURN_SECONDS, MAX_TURN_STEPS = 1.0, 50
# From files a step takes long, and one alone would not see the queue of decoded clips run dry.
LEAST_STEPS = {"video": 2, "frames": 2}
READ_CLIPS = 8


@dataclass(frozen=True)
class Turns:
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
    input: tuple[int, int, int, int]
    batch_size: int
    device: str
    threads: int
    precision: str
    compile: str | None
    video: str | None
    frames: str | None
    list: str | None
    workers: int


class Peer(NamedTuple):
    """Another framework beside ours.

    Args:
        name: of its folder in `.peers`.
        command: of its worker.
        setting: the name by which that knows the setting.
        precision: as in `Turns`; its own.
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

    A context manager: inside, it is built.

    Args:
        command: what to start.
        turns: told to it.
        log: where what it prints goes.
        number: of processes.
        folder: to start it in.
    """

    def __init__(
        self, command: list[str], turns: Turns, log: Path, number: int = 1, folder: Path | None = None
    ):
        self.log = log
        self.about: dict[str, Any] = {}
        self.processes: list[subprocess.Popen[str]] = []
        with log.open("a") as file:
            for rank, variables in enumerate(_ranks(number)):
                self.processes.append(
                    subprocess.Popen(
                        [*command, json.dumps(asdict(turns))],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=file,
                        text=True,
                        cwd=folder,
                        env={**os.environ, **variables},
                        # All are in this group with their children; should this process be killed, the system
                        # wakes the group and tells it to end.
                        process_group=self.processes[0].pid if rank else 0,
                    )
                )

    def __enter__(self) -> "Worker":
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def begin(self) -> None:
        """Wait until it is built."""
        self.about = self._answer()
        self._signal("SIGSTOP")

    def __exit__(self, *exception: object) -> None:
        self._signal("SIGKILL")
        for process in self.processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request; of several processes the first one's.

        Raises:
            WorkerError: there is none.
        """
        self._signal("SIGCONT")
        try:
            for process in self.processes:
                assert process.stdin is not None
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            return self._answer()
        except BrokenPipeError:
            raise WorkerError(f"it ended; see {self.log}") from None
        finally:
            self._signal("SIGSTOP")

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
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.processes[0].pid, getattr(signal, name))
        elif name == "SIGKILL":
            for process in self.processes:
                process.kill()


def our_command() -> list[str]:
    """What starts a worker of ours."""
    return [sys.executable, "-m", "mmaction_lite.benchmark.worker"]


def find_peers(folder: Path) -> dict[str, list[str]]:
    """The commands of the peers that are installed under `folder`, by name; see `make peers`."""
    scripts = Path(__file__).parents[2] / "peers"
    found = {}
    for script in sorted(scripts.glob("worker_*.py")):
        name = script.stem.removeprefix("worker_")
        python = folder / name / "bin" / "python"
        if python.exists():
            found[name] = [str(python.absolute()), str(script)]
    return found


class Field:
    """Our worker and one for each peer; a peer that fails leaves the field. A context manager.

    Args:
        turns: what ours is told.
        peers: who else.
        folder: for logs and files that pass between processes.
        devices: processes of ours that train together.
        say: called with a line about a peer that fails.
    """

    def __init__(
        self, turns: Turns, peers: Sequence[Peer], folder: Path, devices: int, say: Callable[[str], None]
    ):
        self.setting = turns.setting
        self.say = say
        self.errors: dict[str, str] = {}
        self.workers: dict[str, Worker] = {}
        self.stack = contextlib.ExitStack()
        # All start at once, and build while others build.
        with self.stack:
            self._add(OURS, Worker(our_command(), turns, folder / "ours.log", devices))
            for peer in peers:
                told = replace(turns, setting=peer.setting, precision=peer.precision)
                log = folder / f"worker_{str(peer).replace(' ', '_')}.log"
                # Its script finds those beside it; the folder is its own, for what it leaves behind.
                self._add(str(peer), Worker(peer.command, told, log, folder=folder))
            self.stack = self.stack.pop_all()

    def _add(self, name: str, worker: Worker) -> None:
        self.workers[name] = worker
        self.stack.push(worker.__exit__)

    def __enter__(self) -> "Field":
        with self.stack:
            for name, worker in list(self.workers.items()):
                self._try(name, worker.begin)
            self.stack = self.stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def ask(self, name: str, **request: Any) -> dict[str, Any] | None:
        """The answer of a worker, None if it has left.

        Raises:
            UserError: ours fails.
        """
        worker = self.workers.get(name)
        return self._try(name, lambda: worker.ask(**request)) if worker else None

    def _try(self, name: str, run: Callable[[], T]) -> T | None:
        try:
            return run()
        except WorkerError as error:
            if name == OURS:
                raise UserError(f"{self.setting}: {error}") from None
            self.errors[name] = str(error)
            self.say(f"{self.setting}: {name} takes no part in what follows: {error}")
            self.workers.pop(name).__exit__()
            return None


def take_turns(field: Field, phase: str, rounds: int) -> dict[str, list[list[dict[str, float]]]]:
    """Steps of `phase` by worker, round and number in the turn, each with its seconds by stage.

    All take as many steps in a turn: enough for the slowest to work for a second. Who fails is not in it.
    """
    taking = [name for name, worker in field.workers.items() if phase in worker.about["phases"]]
    slowest = 0.0
    for name in taking:
        field.ask(name, phase=phase, steps=1)
        if answer := field.ask(name, phase=phase, steps=1):
            slowest = max(slowest, answer["steps"][0]["iteration"])
    steps = min(MAX_TURN_STEPS, max(LEAST_STEPS.get(phase, 1), math.ceil(TURN_SECONDS / slowest)))
    turns: dict[str, list[list[dict[str, float]]]] = {name: [] for name in taking}
    for _ in range(rounds):
        for name in taking:
            if answer := field.ask(name, phase=phase, steps=steps):
                turns[name].append(answer["steps"])
    return {name: turns[name] for name in taking if name in field.workers}


def measure(
    turns: Turns,
    peers: Sequence[Peer],
    rounds: int,
    folder: Path,
    devices: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Everything about one setting, beside each of the peers, or alone where there are none.

    Args:
        turns: how.
        peers: who takes turns with ours.
        rounds: turns of each in every phase.
        folder: for logs and files that pass between processes.
        devices: processes of ours that train together; they exchange gradients in "train", not in "apart",
            and nothing else in "link".
        say: called with a line about what goes wrong with a peer, which ends its part and not the whole.

    Returns:
        for each peer: "frameworks" by side; "train", "infer", "video" and "frames", each with the turns of
        `take_turns` by side; "stages" of our training step; "memory_mib" by side; "read_milliseconds" of
        processor time for a training clip, by source; "check" of the logits; "error" of the peer.

    Raises:
        UserError: ours fails.
    """
    found: dict[str, dict[str, Any]] = {}  # by phase, then by worker
    alone: dict[str, Any] = {"read_milliseconds": {}}
    with Field(turns, peers, folder, devices, say) as field:
        about = {name: worker.about for name, worker in field.workers.items()}
        checks = {str(peer): _check(field, str(peer), folder) for peer in peers}
        for phase in ["train", "apart", "link"] if devices > 1 else ["train", "infer", "video", "frames"]:
            if phase not in about[OURS]["phases"]:
                continue
            found[phase] = take_turns(field, phase, rounds)
            if phase == "train":
                answers = {name: field.ask(name, phase="memory") for name in found[phase]}
                found["memory_mib"] = {name: round(a["mib"], 1) for name, a in answers.items() if a}
                alone["stages"] = (field.ask(OURS, phase="stages", steps=3) or {})["steps"]
            if phase in LEAST_STEPS:
                answer = field.ask(OURS, phase="read", source=phase, clips=READ_CLIPS) or {}
                alone["read_milliseconds"][phase] = answer["milliseconds"]
    rows = []
    for name in [str(peer) for peer in peers] or [None]:
        sides = {OURS: OURS} if name is None else {OURS: OURS, name: PEER}
        row = {
            phase: {side: by_name[who] for who, side in sides.items() if who in by_name}
            for phase, by_name in found.items()
        }
        row["frameworks"] = {side: about[who]["framework"] for who, side in sides.items() if who in about}
        row |= alone
        row |= {"check": checks[name]} if name and checks[name] else {}
        row |= {"error": field.errors[name]} if name in field.errors else {}
        rows.append(row)
    return rows


def _check(field: Field, name: str, folder: Path) -> dict[str, Any] | None:
    """Whether both are the same network: how far our logits are from the peer's with the peer's weights."""
    file = folder / "check.pt"
    try:
        is_there = field.ask(name, phase="check", file=str(file.absolute())) is not None
        return field.ask(OURS, phase="check", file=str(file.absolute())) if is_there else None
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
