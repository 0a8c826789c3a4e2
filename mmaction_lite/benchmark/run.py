"""The benchmark from end to end: every row, beside every peer, into one file that grows row by row."""

import json
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmaction_lite.benchmark.comparison import (
    OURS,
    Comparison,
    Peer,
    WorkerConfig,
    find_peers,
    measure_feeding,
    measure_network,
    rows_of,
    warm,
)
from mmaction_lite.benchmark.environment import environment, measure_limits
from mmaction_lite.benchmark.settings import SETTINGS, Setting
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.device import CompileMode, Precision, available_cores, configure_process, pick_device
from mmaction_lite.errors import UserError, nearest
from mmaction_lite.files import write_atomically
from mmaction_lite.models.complexity import multiply_adds, parameters, traffic
from mmaction_lite.settings import NonNegativeInt, PositiveInt, check_fields
from mmaction_lite.tasks.single_label import SingleLabel

FILE = "benchmark.json"
VERSION = 1
LISTED = 20_000  # clips: more than a peer takes in all its turns


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How all rows are measured.

    Args:
        device: see `pick_device`.
        batch_size: clips of a step and device; None takes the row's own.
        precision: of our networks.
        peer_precisions: of theirs; each peer takes part once in each.
        compile: ours, in this mode of `torch.compile`.
        devices: processes of ours that train together, each on a device or its share of the cores; of several
            only the network is measured, `data` is None.
        data: a data set to train from; None measures without files.
        workers: decoding processes.
        rounds: turns in every phase.
        inference: whether it is measured, too.
        at_once: rows that start, and of which ours compile, together; one after the other is then measured,
            while the others are stopped. They have to fit into memory together, with the peers of all.
    """

    device: str
    batch_size: PositiveInt | None
    precision: Precision
    peer_precisions: tuple[Precision, ...]
    compile: CompileMode | None
    devices: PositiveInt
    data: Path | None
    workers: NonNegativeInt
    rounds: PositiveInt
    inference: bool = True
    at_once: PositiveInt = 1

    def __post_init__(self):
        check_fields(self)

    @property
    def phases(self) -> tuple[str, ...]:
        """Of the steps without files: those of processes that train together, or of one."""
        if self.devices > 1:
            return ("train", "apart", "link")
        return ("train", "infer") if self.inference else ("train",)


def run_benchmark(
    settings: Sequence[Setting], plan: Plan, peers: Path, out: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[str]]:
    """Measure every row that is not yet in `out`.

    Args:
        settings: the rows.
        plan: how.
        peers: the folder of their environments.
        out: a folder; one that an interrupted run of the same plan left goes on.
        say: called with a line for every row.

    Returns:
        the whole content of its `benchmark.json`, and why ours failed in a row, for each in which it did.

    Raises:
        UserError: `out` holds something measured otherwise, or a device is not there.
    """
    device = pick_device(plan.device)
    commands = find_peers(peers) if plan.devices == 1 else {}
    threads = max(1, available_cores() // plan.devices) if device.type == "cpu" else available_cores()
    options = {
        **asdict(plan),
        "device": device.type,
        "peer_precisions": list(plan.peer_precisions),
        "data": plan.data and str(plan.data),
        "threads": threads,
    }
    found = _begin(out / FILE, options, environment(device))
    if "limits" not in found:
        configure_process(device)
        torch.set_num_threads(threads)
        found["limits"] = measure_limits(device, getattr(torch, plan.precision))
    listed = _write_list(plan.data, out) if plan.data else None
    left = [(setting, _peers_left(setting, plan, commands, found["results"])) for setting in settings]
    left = [(setting, beside) for setting, beside in left if beside is not None]
    if not left:
        say(f"{out / FILE}: has all of these rows; nothing is left to measure")
    elif plan.devices == 1 and not commands:
        say(f"no other framework is in {peers}: ours is measured alone (make peers installs them)")
    failed: list[str] = []
    for first in range(0, len(left), plan.at_once):
        with ExitStack() as stack:
            group = [
                (
                    setting,
                    stack.enter_context(
                        Comparison(
                            _turns(setting, plan, device, threads, listed), beside, out, plan.devices, say
                        )
                    ),
                )
                for setting, beside in left[first : first + plan.at_once]
            ]
            for _, field in group:
                with suppress(UserError):  # it says so when its turn comes
                    field.begin()
            if len(group) > 1:
                warm([field for _, field in group], plan.phases)
            for _, field in group:
                field.begin_peers()
            for setting, field in group:
                began = time.perf_counter()
                try:
                    for numbers in _measure(field, plan):
                        _store(found, setting, field, numbers, out / FILE)
                    say(f"{setting.name}: {time.perf_counter() - began:.0f} s")
                except UserError as error:
                    failed.append(str(error))
                    say(str(error))
                field.close()  # the others need the memory
    return found, failed


def _measure(field: Comparison, plan: Plan) -> Iterator[dict[str, Any]]:
    """What is found, first without files and then with them.

    Raises:
        UserError: ours fails.
    """
    numbers = measure_network(field, plan.rounds, plan.phases)
    if plan.data is None:
        yield numbers
        return
    yield numbers | {"error": "it was not measured from files"}  # so that an interrupted run goes on here
    try:
        taken = [step["iteration"] for turn in numbers["train"][OURS] for step in turn]
        clips_per_second = field.config.batch_size / statistics.median(taken)
        yield numbers | measure_feeding(field, plan.rounds, clips_per_second)
    except UserError as error:
        yield numbers | {"error": str(error)}
        raise


def _peers_left(
    setting: Setting, plan: Plan, commands: dict[str, list[str]], rows: list[dict[str, Any]]
) -> list[Peer] | None:
    """Beside whom a row is still to be measured; None if it is all there."""
    done = {
        (row["peer"], row["peer_precision"])
        for row in rows
        if row["setting"] == setting.name and "error" not in row
    }
    left = [
        Peer(name, commands[name], theirs, precision)
        for name, theirs in setting.peers.items()
        if name in commands
        for precision in plan.peer_precisions
        if (name, precision) not in done
    ]
    return None if done and not left else left


def _turns(
    setting: Setting, plan: Plan, device: torch.device, threads: int, listed: Path | None
) -> WorkerConfig:
    """How a row is measured."""
    frames, height, width, _ = setting.build().train.view_shape
    published = setting.cpu_batch if device.type == "cpu" else setting.published_batch
    batch_size = plan.batch_size or published
    video, twin = _sources(plan.data, setting, device)
    return WorkerConfig(
        setting=setting.name if not isinstance(setting.recipe, str) else setting.recipe,
        input=(batch_size, frames, height, width),
        batch_size=batch_size,
        device=device.type,
        threads=threads,
        precision=plan.precision,
        compile=plan.compile,
        video=video,
        frames=twin,
        list=listed and str(listed.absolute()),
        workers=plan.workers,
    )


def _store(
    found: dict[str, Any], setting: Setting, field: Comparison, numbers: dict[str, Any], file: Path
) -> None:
    """Put a setting's rows among the results, in place of what was there of them, and write the file."""
    recipe, (batch_size, frames, height, width) = setting.build(), field.config.input
    with torch.device("meta"):
        model = recipe.model()
    shape = (1, 3, frames, height, width)
    about = {
        "setting": setting.name,
        "recipe": recipe.name,
        "batch_size": batch_size,
        "input": field.config.input,
        "parameters": parameters(model),
        "multiply_adds": batch_size * multiply_adds(model, shape),
        "traffic_bytes": batch_size * traffic(model, shape),
    }
    rows = []
    for peer, row in zip(field.peers or [None], rows_of(field, numbers), strict=True):
        named = {"peer": peer and peer.name, "peer_precision": peer and peer.precision}
        rows.append({**about, **named, **row})

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["setting"], row["peer"], row["peer_precision"]

    new = {key(row) for row in rows}

    def is_kept(row: dict[str, Any]) -> bool:
        is_done = row["peer"] is not None and "error" not in row
        return row["setting"] != setting.name or (is_done and key(row) not in new)

    found["results"] = [*filter(is_kept, found["results"]), *rows]
    names = [setting.name for setting in SETTINGS]
    found["results"].sort(
        key=lambda row: names.index(row["setting"]) if row["setting"] in names else len(names)
    )
    save_result(found, file)


def save_result(found: dict[str, Any], file: Path) -> None:
    """Write what `read_result` reads."""
    text = json.dumps(found, indent=1).encode()
    write_atomically(file, lambda out: out.write(text))


def frames_of(data: Path) -> Path:
    """Where a data set's twin of JPEG frames is, if there is one."""
    return data.resolve().with_name(f"{data.resolve().name}_frames")


def _sources(data: Path | None, setting: Setting, device: torch.device) -> tuple[str | None, str | None]:
    """What is trained from: files, and their twin of JPEG frames where a GPU may be faster than decoding."""
    if data is None:
        return None, None
    twin = frames_of(data)
    if not twin.is_dir():
        return str(data.absolute()), None
    if setting.from_frames:
        return None, str(twin.absolute())
    return str(data.absolute()), str(twin.absolute()) if device.type != "cpu" else None


def read_result(file: Path) -> dict[str, Any]:
    """What `save_result` wrote.

    Raises:
        UserError: it is something else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["version"] != VERSION or not isinstance(found["results"], list):
            raise KeyError("version")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is no result of mmaction-lite benchmark ({error})") from None
    return found


def find_row(found: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    """The first row of that setting or recipe.

    Raises:
        UserError: there is none, or it was measured on several devices.
    """
    if found["options"]["devices"] > 1:
        raise UserError(
            f"{file}: was measured on {found['options']['devices']} devices; a prediction begins with one"
        )
    for row in found["results"]:
        if name in (row["setting"], row["recipe"]):
            return row
    names = [row["setting"] for row in found["results"]]
    raise UserError(f"{file}: has no row {name!r}; {nearest(name, names)}")


def read_imported(file: Path, rows: Collection[str]) -> dict[str, Any]:
    """What somebody measured with another framework; the page says who.

    The file: {"framework": "PySlowFast", "measured_by": "who, when, on what", "results": [{"setting": a row's
    name, "batch_size": …, "iteration_seconds": …, "data_seconds": …, "memory_mib": …}]}; the last two may be
    left out.

    Args:
        file: JSON.
        rows: the names of those that there are.

    Raises:
        UserError: something is missing or is no number.
    """
    try:
        theirs = json.loads(file.read_text(encoding="utf-8"))
        for name in ("framework", "measured_by", "results"):
            if name not in theirs:
                raise UserError(f'{file}: has no "{name}"')
        for number, row in enumerate(theirs["results"], 1):
            if row.get("setting") not in rows:
                known = ", ".join(sorted(rows))
                raise UserError(
                    f"{file}: result {number}: setting {row.get('setting')!r} is not one of: {known}"
                )
            for name in ("batch_size", "iteration_seconds", "data_seconds", "memory_mib"):
                value: Any = row.get(name)
                is_optional = name in ("data_seconds", "memory_mib")
                if value is None and is_optional:
                    continue
                if not (
                    isinstance(value, int | float)
                    and not isinstance(value, bool)
                    and (value > 0 or (is_optional and value == 0))
                ):
                    raise UserError(f"{file}: result {number}: {name} must be a number, got {value!r}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: is no JSON file of results ({error})") from None
    return theirs


def add_imported(found: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Take it over, in place of what there was of that framework."""
    others = [other for other in found.get("imported", []) if other["framework"] != theirs["framework"]]
    found["imported"] = [*others, theirs]


def _begin(file: Path, options: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
    """What is there already, or a beginning."""
    if file.parent.exists() and not file.parent.is_dir():
        raise UserError(f"{file.parent}: is a file; --out is a folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["mmaction-lite", *sys.argv[1:]])
    if not file.exists():
        return {
            "version": VERSION,
            "command": command,
            "date": time.strftime("%Y-%m-%d"),
            "options": options,
            "environment": here,
            "results": [],
        }
    found = read_result(file)
    # How many rows start together is no part of what is measured.
    changed = [
        f"{name.replace('_', ' ')} {found['options'].get(name)}, not {options[name]}"
        for name in options
        if name != "at_once" and found["options"].get(name) != options[name]
    ]
    changed += [
        f"{name} {found['environment'].get(name)}, not {here[name]}"
        for name in ("device", "processor", "torch")
        if found["environment"].get(name) != here[name]
    ]
    if changed:
        raise UserError(f"{file}: was measured with {'; '.join(changed)}; choose another --out")
    return found


def _write_list(data: Path, out: Path) -> Path:
    """The training clips as lines `path label`, many times over, so that readers need not begin again."""
    samples = read_split(data, "train")
    SingleLabel().check_labels(samples.label_columns, samples.source)
    if samples.segments is not None:
        raise UserError(f"{data}: the benchmark reads whole files, not parts of videos")
    lines = [f"{samples.path(i).absolute()} {samples.labels[i]}\n" for i in range(len(samples))]
    file = out / "videos.txt"
    file.write_text("".join(lines) * math.ceil(LISTED / len(lines)), encoding="utf-8")
    return file
