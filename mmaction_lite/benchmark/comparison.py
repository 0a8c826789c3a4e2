"""Comparison of this package with other frameworks: measurements in turns, and their results.

The speed of a shared machine varies. Only measurements at nearly the same time are comparable, so every round
is one turn of each worker, and ratios are taken round by round.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mmaction_lite.benchmark.processes import Peer, Worker, WorkerConfig, WorkerError, our_command
from mmaction_lite.data.loading.workers import PREFETCH
from mmaction_lite.errors import UserError

T = TypeVar("T")
OURS, PEER = "ours", "peer"
TURN_SECONDS = {"cpu": 1.0, "cuda": 0.4, "mps": 0.4}
MAX_TURN_STEPS = 50
SOURCES = ("video", "frames")
PHASES = ("train", "apart", "link", "sharded", "infer", *SOURCES)
LEAST_GPU_STEPS = 5  # the first step after a pause is slower
# A single step from files would take its batch from the queue of decoded clips and not wait for the decoding.
LEAST_STEPS: dict[str, int] = dict.fromkeys(SOURCES, 2)
READ_CLIPS = 8


class Comparison:
    """Workers of one setting: of this package and of each peer. A context manager.

    A peer that fails is removed; the others continue.

    Args:
        config: options of the worker of this package.
        peers: other frameworks.
        folder: folder for logs and exchanged files.
        devices: number of processes of this package in a distributed training.
        say: called with a line when a peer fails.
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
        """Start all workers. They build their networks at the same time as those of other comparisons."""
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
        """Kill all workers."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()  # the system may reuse their process ids

    def begin(self) -> None:
        """Wait until the worker of this package has built its network.

        Raises:
            UserError: it failed.
        """
        self.attempt(OURS, self.workers[OURS].begin)

    def begin_peers(self) -> None:
        """Wait until the workers of the peers have built their networks."""
        for name in [name for name in self.workers if name != OURS]:
            self.attempt(name, self.workers[name].begin)
        about = {name: worker.about for name, worker in self.workers.items()}
        self.frameworks = {name: answer["framework"] for name, answer in about.items() if answer}
        for peer in self.peers:
            if peer.is_older_commit and str(peer) in self.frameworks:
                self.frameworks[str(peer)] += f", {peer.name}"
        self.missing = {name: answer.get("missing", {}) for name, answer in about.items()}

    def _start(self, peer: Peer) -> None:
        config = replace(self.config, setting=peer.setting, precision=peer.precision)
        log = self.folder / f"worker_{str(peer).replace(' ', '_')}.log"
        # The working directory receives the files that other frameworks write.
        self.workers[str(peer)] = Worker(peer.command, config, log, folder=self.folder, source=peer.source)

    def ask(self, name: str, **request: Any) -> dict[str, Any] | None:
        """Return the answer of a worker; None if it failed, now or before.

        Raises:
            UserError: the worker of this package failed.
        """
        worker = self.workers.get(name)
        return self.attempt(name, lambda: worker.ask(**request)) if worker else None

    def ask_ours(self, **request: Any) -> dict[str, Any]:
        """Return the answer of the worker of this package.

        Raises:
            UserError: it failed.
        """
        answer = self.ask(OURS, **request)
        assert answer is not None
        return answer

    def can(self, name: str, phase: str) -> bool:
        """Whether a worker runs and supports a phase."""
        return name in self.workers and phase in self.workers[name].about["phases"]

    def attempt(self, name: str, run: Callable[[], T]) -> T | None:
        """Return the result of `run`; if it fails, remove the peer `name` and return None.

        Raises:
            UserError: it failed and `name` is this package.
        """
        try:
            return run()
        except (WorkerError, OSError) as error:
            self.errors[name] = str(error)
            if name == OURS:
                raise UserError(f"{self.config.setting}: {error}") from None
            self.say(f"{self.config.setting}: {name} failed and is not measured further: {error}")
            if worker := self.workers.pop(name, None):
                worker.close()
            return None


def warm(comparisons: Sequence[Comparison], phases: Sequence[str]) -> None:
    """Take the first steps of this package in all comparisons at once; compilation then uses all cores.

    Errors are reported when the comparison is measured.
    """
    for phase in phases:
        asked = [comparison.workers[OURS] for comparison in comparisons if OURS not in comparison.errors]
        for worker in asked:
            with contextlib.suppress(WorkerError):
                worker.send(phase=phase, steps=3)
        for worker in asked:
            with contextlib.suppress(WorkerError):
                worker.receive()


def take_turns(comparison: Comparison, phase: str, rounds: int) -> dict[str, list[list[dict[str, float]]]]:
    """Measure a phase in turns; return seconds by stage, for each worker, round and step.

    All workers take the same number of steps per turn, so that the slowest one works for about a second, or
    less on a GPU. For training from files on a GPU, the warm-up takes all batches in the queue of decoded
    clips, and a turn takes twice as many, so that the decoding limits the steps. Workers that fail are not in
    the result.
    """
    taking = {name: (name, phase) for name in comparison.workers if comparison.can(name, phase)}
    device, slowest = comparison.config.device, 0.0
    ready = PREFETCH * comparison.config.workers if phase in SOURCES and device != "cpu" else 0
    for worker, what in taking.values():
        comparison.ask(worker, phase=what, steps=1 + ready)
        if answer := comparison.ask(worker, phase=what, steps=1):
            slowest = max(slowest, answer["steps"][0]["iteration"])
    least = LEAST_STEPS.get(phase, 1) if device == "cpu" else LEAST_GPU_STEPS
    steps = max(2 * ready, min(MAX_TURN_STEPS, max(least, math.ceil(TURN_SECONDS[device] / slowest))))
    steps_of: dict[str, list[list[dict[str, float]]]] = {name: [] for name in taking}
    for _ in range(rounds):
        for name, (worker, what) in taking.items():
            if answer := comparison.ask(worker, phase=what, steps=steps):
                steps_of[name].append([_to_microseconds(step) for step in answer["steps"]])
    return {name: steps_of[name] for name, (worker, _) in taking.items() if worker in comparison.workers}


def _to_microseconds(step: dict[str, float]) -> dict[str, float]:
    return {stage: round(seconds, 6) for stage, seconds in step.items()}


def measure_network(comparison: Comparison, rounds: int, phases: Sequence[str]) -> dict[str, Any]:
    """Measure steps on a fixed batch, in turns with all peers.

    Args:
        comparison: the workers, which have built their networks.
        rounds: number of turns of each worker in every phase.
        phases: "train" first, then "infer". For distributed training also "apart", without the exchange of
            gradients, "link", the exchange alone, and "sharded", with FSDP2.

    Returns:
        For each phase the result of `take_turns`; "memory_mib" by worker, "check" of the logits by peer, and
        "stages" and "profile" of the training step of this package.

    Raises:
        UserError: the worker of this package failed.
    """
    found: dict[str, Any] = {}
    if error := comparison.errors.get(OURS):
        raise UserError(f"{comparison.config.setting}: {error}")
    for phase in phases:
        found[phase] = take_turns(comparison, phase, rounds)
        if phase == "train":
            answers = {name: comparison.ask(name, phase="memory") for name in found[phase]}
            found["memory_mib"] = {
                name: round(answer["mib"], 1) for name, answer in answers.items() if answer
            }
            found["stages"] = comparison.ask_ours(phase="stages", steps=3)["steps"]
    found["profile"] = comparison.ask_ours(phase="profile", of=[p for p in phases if p in ("train", "infer")])
    # Last, because it increases the peak memory.
    found["check"] = {str(peer): _check(comparison, str(peer)) for peer in comparison.peers}
    return found


def measure_feeding(comparison: Comparison, rounds: int, clips_per_second: float) -> dict[str, Any]:
    """Measure training steps from files, in turns with the peers that can read them.

    If the dataset exists as video files and as JPEG frames, the videos are used if decoding keeps up with a
    network of `clips_per_second` in three quarters of the time of the workers, otherwise the frames.

    Args:
        comparison: the workers.
        rounds: number of turns of each worker.
        clips_per_second: throughput of the training step without files.

    Returns:
        For "video" or "frames" the result of `take_turns`, and for the other one if a peer reads only that;
        "read_milliseconds", the CPU time per training clip, by source.
    """
    sources = [source for source in SOURCES if comparison.can(OURS, source)]
    read = {
        source: comparison.ask_ours(phase="read", source=source, clips=READ_CLIPS)["milliseconds"]
        for source in sources
    }
    cores = 0.75 * comparison.config.workers
    fits = [source for source in sources if clips_per_second * read[source] / 1000 <= cores]
    source = (fits or sources[-1:])[0]
    peers = [str(peer) for peer in comparison.peers if not comparison.can(str(peer), source)]
    others = [s for s in sources if s != source and any(comparison.can(peer, s) for peer in peers)]
    return {"read_milliseconds": read} | {
        each: take_turns(comparison, each, rounds) for each in (source, *others)
    }


def rows_of(comparison: Comparison, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Convert the measurements of all workers into one row per peer, or one row without peers.

    Keys of a row are "ours" and "peer" instead of the names of the workers.
    """
    rows = []
    for name in [str(peer) for peer in comparison.peers] or [None]:
        sides = {OURS: OURS} | ({name: PEER} if name else {})

        def of(by_worker: dict[str, Any], sides: dict[str, str] = sides) -> dict[str, Any]:
            return {side: by_worker[who] for who, side in sides.items() if who in by_worker}

        row: dict[str, Any] = {"frameworks": of(comparison.frameworks)}
        row |= {what: of(value) for what, value in found.items() if what in PHASES or what == "memory_mib"}
        row |= {what: found[what] for what in ("stages", "profile", "read_milliseconds") if what in found}
        if name and found["check"][name]:
            row["check"] = found["check"][name]
        if name and (missing := comparison.missing.get(name)):
            row["missing"] = missing
        errors = [error for error in (found.get("error"), comparison.errors.get(name or OURS)) if error]
        if errors:
            row["error"] = "; ".join(errors)
        rows.append(row)
    return rows


def _check(comparison: Comparison, name: str) -> dict[str, Any] | None:
    """Compare the logits of this package with those of a peer, with the weights of the peer.

    Only if the benchmark runs on the CPU: this package computes them there, which is slow next to a GPU. An
    older commit of this package saves no weights.
    """
    older = {str(peer) for peer in comparison.peers if peer.is_older_commit}
    if comparison.config.device != "cpu" or name in older:
        return None
    file = comparison.folder / "check.pt"
    try:
        is_there = comparison.ask(name, phase="check", file=str(file.absolute())) is not None
        return comparison.ask_ours(phase="check", file=str(file.absolute())) if is_there else None
    finally:
        file.unlink(missing_ok=True)
