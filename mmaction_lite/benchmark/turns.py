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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmaction_lite.errors import UserError

OURS, PEER = "ours", "peer"
TURN_SECONDS, MAX_TURN_STEPS = 1.0, 50
# From files a step takes long, and one alone would not see the queue of decoded clips run dry.
LEAST_STEPS = {"video": 2}


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
        data: a data set, for training from files; None leaves that out.
        list: the same as lines `path label`, for those who read that.
        workers: decoding processes.
    """

    setting: str
    input: tuple[int, int, int, int]
    batch_size: int
    device: str
    threads: int
    precision: str
    compile: str | None
    data: str | None
    list: str | None
    workers: int


class WorkerError(Exception):
    """A worker could not do what it was asked; the message is its own."""


class Worker:
    """One process, or several that train together and are asked alike; stopped until asked.

    A context manager.

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
            self.about = self._answer()
        except BaseException:
            self.__exit__()
            raise
        self._signal("SIGSTOP")
        return self

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


def take_turns(
    workers: dict[str, Worker], phase: str, rounds: int
) -> dict[str, list[list[dict[str, float]]]]:
    """Steps of `phase` by worker, round and number in the turn, each with its seconds by stage.

    All take as many steps in a turn: enough for the slowest to work for a second.
    """
    slowest = 0.0
    for worker in workers.values():
        worker.ask(phase=phase, steps=1)
        slowest = max(slowest, worker.ask(phase=phase, steps=1)["steps"][0]["iteration"])
    steps = min(MAX_TURN_STEPS, max(LEAST_STEPS.get(phase, 1), math.ceil(TURN_SECONDS / slowest)))
    turns: dict[str, list[list[dict[str, float]]]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            turns[name].append(worker.ask(phase=phase, steps=steps)["steps"])
    return turns


def measure(
    turns: Turns,
    peer: tuple[list[str], str] | None,
    rounds: int,
    folder: Path,
    devices: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Everything about one setting, alone or beside one peer.

    Args:
        turns: how.
        peer: the command of its worker, and the name by which that knows the setting.
        rounds: turns of each in every phase.
        folder: for logs and files that pass between processes.
        devices: processes of ours that train together; they exchange gradients in "train", not in "apart",
            and nothing else in "link".
        say: called with a line about what goes wrong with the peer, which ends its part and not the whole.

    Returns:
        "frameworks" by side; "train", "infer" and "video", each with the turns of `take_turns` by side;
        "stages" of our training step; "memory_mib" by side; "difference" of the logits; "error" of the peer.

    Raises:
        UserError: ours fails.
    """
    found: dict[str, Any] = {"frameworks": {}, "memory_mib": {}}
    workers: dict[str, Worker] = {}

    def end_peer(error: WorkerError) -> None:
        name = Path(peer[0][1]).stem.removeprefix("worker_") if peer else ""
        found["error"] = str(error)
        say(f"{turns.setting}: {name} takes no part in what follows: {error}")
        if worker := workers.pop(PEER, None):
            worker.__exit__()

    try:
        workers[OURS] = Worker(our_command(), turns, folder / "ours.log", devices).__enter__()
        if peer:
            theirs = Turns(**{**asdict(turns), "setting": peer[1]})
            command, log = peer[0], folder / f"{Path(peer[0][1]).stem}.log"
            try:
                # Its script finds those beside it; the folder is its own, for what it leaves behind.
                workers[PEER] = Worker(command, theirs, log, folder=folder).__enter__()
            except WorkerError as error:
                end_peer(error)
        for side, worker in workers.items():
            found["frameworks"][side] = worker.about["framework"]
        if PEER in workers:
            found["check"] = _check(workers, folder, end_peer)
        for phase in ["train", "apart", "link"] if devices > 1 else ["train", "infer", "video"]:
            if phase not in workers[OURS].about["phases"]:
                continue
            taking = {side: worker for side, worker in workers.items() if phase in worker.about["phases"]}
            try:
                found[phase] = take_turns(taking, phase, rounds)
            except WorkerError as error:
                if PEER not in taking:
                    raise
                end_peer(error)
                found[phase] = take_turns({OURS: workers[OURS]}, phase, rounds)
            if phase == "train":
                for side, worker in workers.items():
                    found["memory_mib"][side] = round(worker.ask(phase="memory")["mib"], 1)
                found["stages"] = workers[OURS].ask(phase="stages", steps=3)["steps"]
    except WorkerError as error:
        raise UserError(f"{turns.setting}: {error}") from None
    finally:
        for worker in workers.values():
            worker.__exit__()
    return found


def _check(
    workers: dict[str, Worker], folder: Path, end_peer: Callable[[WorkerError], None]
) -> dict[str, Any] | None:
    """Whether both are the same network: how far our logits are from the peer's with the peer's weights."""
    file = folder / "check.pt"
    try:
        workers[PEER].ask(phase="check", file=str(file.absolute()))
    except WorkerError as error:
        end_peer(error)
        return None
    try:
        return workers[OURS].ask(phase="check", file=str(file.absolute()))
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
