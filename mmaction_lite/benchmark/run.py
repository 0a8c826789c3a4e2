"""The benchmark: measure every row, with this package and every peer, into one file of results."""

import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmaction_lite.benchmark.comparison import (
    OURS,
    Comparison,
    measure_feeding,
    measure_network,
    rows_of,
    warm,
)
from mmaction_lite.benchmark.environment import environment, measure_limits
from mmaction_lite.benchmark.lists import frames_of, write_frames_list, write_video_list
from mmaction_lite.benchmark.processes import InstalledPeer, Peer, WorkerConfig
from mmaction_lite.benchmark.settings import SETTINGS, Setting
from mmaction_lite.data.views.samplers import TimedSampler
from mmaction_lite.device import CompileMode, Precision, available_cores, configure_process, pick_device
from mmaction_lite.errors import UserError, describe, nearest
from mmaction_lite.files import FolderLock, check_output_folder, check_replaceable, write_atomically
from mmaction_lite.models.complexity import multiply_adds, parameters, traffic
from mmaction_lite.settings import NonNegativeInt, PositiveInt, check_fields

FILE = "benchmark.json"
VERSION = 1
FRAME_READERS = frozenset({"mit_tsm"})  # peers that read JPEG frames only


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Options of a benchmark.

    Args:
        device: see `pick_device`.
        batch_size: batch size per device; None: that of each row.
        precision: precision of this package.
        peer_precisions: precisions of the peers; each peer is measured once in each.
        compile: mode of `torch.compile` for this package; None does not compile.
        devices: number of processes of a distributed training, each on a device or on a part of the cores.
            With several processes only the network is measured, and `data` is None.
        data: dataset to train from; None measures without files.
        workers: number of decoding worker processes.
        rounds: number of turns of each worker in every phase.
        inference: whether inference is measured.
        at_once: number of rows that start and compile together. They are measured one after the other, while
            the others are suspended, and must fit into memory together with all their peers.
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
        """Phases that are measured without files."""
        if self.devices > 1:
            return ("train", "apart", "link", "sharded")
        return ("train", "infer") if self.inference else ("train",)


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """Create the output folder, and keep other processes from writing to it while the block runs.

    Raises:
        UserError: `out` is a file or cannot be written, or another process writes to it.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; --out is a folder")
    check_output_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out):
        yield


def run_benchmark(
    settings: Sequence[Setting],
    plan: Plan,
    peers: Mapping[str, InstalledPeer],
    out: Path,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], list[str]]:
    """Measure every row that is not yet in `out`.

    Args:
        settings: the rows.
        plan: options.
        peers: other frameworks of this machine, by name.
        out: output folder, see `output_folder`; the interrupted benchmark of the same plan in it continues.
        say: called with a line for every row.

    Returns:
        The content of `benchmark.json`, and the errors of all rows in which this package failed.

    Raises:
        UserError: `out` holds results of another plan or machine, or a device is not available.
    """
    device = pick_device(plan.device)
    threads = max(1, available_cores() // plan.devices) if device.type == "cpu" else available_cores()
    options = {
        **asdict(plan),
        "device": device.type,
        "peer_precisions": list(plan.peer_precisions),
        "data": plan.data and str(plan.data),
        "threads": threads,
    }
    found = _begin(out / FILE, options, environment(device))
    if plan.devices == 1 and not peers:
        say("no other framework is installed here; only this package is measured (see `make peers`)")
    if "limits" not in found:
        configure_process(device)
        torch.set_num_threads(threads)
        found["limits"] = measure_limits(device, getattr(torch, plan.precision))
    lists = _write_lists(plan.data, out, peers) if plan.data else {}
    left = [(setting, _peers_left(setting, plan, peers, found["results"])) for setting in settings]
    left = [(setting, beside) for setting, beside in left if beside is not None]
    if not left:
        say(f"{out / FILE}: contains all of these rows; nothing is left to measure")
    failed: list[str] = []
    for first in range(0, len(left), plan.at_once):
        with ExitStack() as stack:
            group = [
                (
                    setting,
                    stack.enter_context(
                        Comparison(
                            _worker_config(setting, plan, device, threads, lists),
                            beside,
                            out,
                            plan.devices,
                            say,
                        )
                    ),
                )
                for setting, beside in left[first : first + plan.at_once]
            ]
            for _, comparison in group:
                with suppress(UserError):  # reported when the comparison is measured
                    comparison.begin()
            if len(group) > 1:
                warm([comparison for _, comparison in group], plan.phases)
            for _, comparison in group:
                comparison.begin_peers()
            for setting, comparison in group:
                began = time.perf_counter()
                try:
                    for numbers in _measure(comparison, plan):
                        _store(found, setting, comparison, numbers, out / FILE)
                    say(f"{setting.name}: {time.perf_counter() - began:.0f} s")
                except UserError as error:
                    failed.append(str(error))
                    say(str(error))
                comparison.close()  # releases memory for the other rows
    return found, failed


def _measure(comparison: Comparison, plan: Plan) -> Iterator[dict[str, Any]]:
    """Yield the measurements of a row, first without files, then with files.

    Raises:
        UserError: the worker of this package failed.
    """
    numbers = measure_network(comparison, plan.rounds, plan.phases)
    if plan.data is None:
        yield numbers
        return
    yield numbers | {"error": "it was not measured from files"}  # an interrupted run repeats the row
    try:
        taken = [step["iteration"] for turn in numbers["train"][OURS] for step in turn]
        clips_per_second = comparison.config.batch_size / statistics.median(taken)
        yield numbers | measure_feeding(comparison, plan.rounds, clips_per_second)
    except UserError as error:
        yield numbers | {"error": str(error)}
        raise


def _peers_left(
    setting: Setting, plan: Plan, peers: Mapping[str, InstalledPeer], rows: list[dict[str, Any]]
) -> list[Peer] | None:
    """Return the peers with which a row is not measured yet; None if the row is complete."""
    done = {
        (row["peer"], row["peer_precision"])
        for row in rows
        if row["setting"] == setting.name and "error" not in row
    }
    left = [
        Peer(name, peers[name].command, theirs, precision, peers[name].source)
        for name, theirs in setting.peers.items()
        if name in peers
        for precision in plan.peer_precisions
        if (name, precision) not in done
    ]
    return None if done and not left else left


def _worker_config(
    setting: Setting, plan: Plan, device: torch.device, threads: int, lists: Mapping[str, str]
) -> WorkerConfig:
    """Return the options of the worker for a row."""
    frames, height, width, _ = setting.build().train.view_shape
    published = setting.cpu_batch if device.type == "cpu" else setting.published_batch
    batch_size = plan.batch_size or published
    video, twin = _sources(plan.data, setting, device.type != "cpu" or "frames_list" in lists)
    return WorkerConfig(
        setting=setting.key,
        input=(batch_size, frames, height, width),
        batch_size=batch_size,
        device=device.type,
        threads=threads,
        precision=plan.precision,
        compile=plan.compile,
        video=video,
        frames=twin,
        list=lists.get("list"),
        workers=plan.workers,
        frames_list=lists.get("frames_list"),
    )


def _store(
    found: dict[str, Any], setting: Setting, comparison: Comparison, numbers: dict[str, Any], file: Path
) -> None:
    """Replace the rows of a setting in the results, and write the file."""
    recipe, (batch_size, frames, height, width) = setting.build(), comparison.config.input
    with torch.device("meta"):
        model = recipe.model()
    shape = (1, 3, frames, height, width)
    about = {
        "setting": setting.name,
        "recipe": recipe.name,
        "batch_size": batch_size,
        "input": comparison.config.input,
        "parameters": parameters(model),
        "multiply_adds": batch_size * multiply_adds(model, shape),
        "traffic_bytes": batch_size * traffic(model, shape),
    }
    rows = []
    for peer, row in zip(comparison.peers or [None], rows_of(comparison, numbers), strict=True):
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
    """Write results as JSON."""
    text = json.dumps(found, indent=1).encode()
    write_atomically(file, lambda out: out.write(text))


def _write_lists(data: Path, out: Path, peers: Collection[str]) -> dict[str, str]:
    """Write the lists of training clips that workers read; return the paths by field of `WorkerConfig`."""
    is_new = not (out / FILE).exists()
    files = {"list": write_video_list(data, out / "videos.txt", is_new=is_new)}
    if FRAME_READERS & set(peers) and frames_of(data).is_dir():
        files["frames_list"] = write_frames_list(frames_of(data), out / "frames.txt", is_new=is_new)
    return {name: str(file.absolute()) for name, file in files.items()}


def _sources(data: Path | None, setting: Setting, needs_frames: bool) -> tuple[str | None, str | None]:
    """Return the dataset of video files, and that of JPEG frames if it is needed beside and exists.

    Frames are needed by GPUs that outpace video decoding and by peers that read nothing else. Folders of
    frames have no frame rate, which some recipes need.
    """
    if data is None:
        return None, None
    twin = frames_of(data)
    if not twin.is_dir() or isinstance(setting.build().train.clips, TimedSampler):
        return str(data.absolute()), None
    if setting.from_frames:
        return None, str(twin.absolute())
    return str(data.absolute()), str(twin.absolute()) if needs_frames else None


def read_result(file: Path) -> dict[str, Any]:
    """Read a file of `save_result`.

    Raises:
        UserError: the file is not such a file.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["version"] != VERSION or not isinstance(found["results"], list):
            raise ValueError(f"expected version {VERSION} with a list of results")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: is no result of mmaction-lite benchmark ({describe(error)})") from None
    return found


def find_row(found: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    """Return the first row of a setting or recipe.

    Raises:
        UserError: there is none, or the file was measured on several devices.
    """
    if found["options"]["devices"] > 1:
        raise UserError(
            f"{file}: was measured on {found['options']['devices']} devices; a prediction needs the result "
            "of one"
        )
    for row in found["results"]:
        if name in (row["setting"], row["recipe"]):
            return row
    names = [row["setting"] for row in found["results"]]
    raise UserError(f"{file}: has no row {name!r}; {nearest(name, names)}")


def read_imported(file: Path, rows: Collection[str]) -> dict[str, Any]:
    """Read external measurements of another framework.

    The file is {"framework": "PySlowFast", "measured_by": "name, date, hardware", "results": [{"setting":
    name of a row, "batch_size": …, "iteration_seconds": …, "data_seconds": …, "memory_mib": …}]}; the last
    two are optional.

    Args:
        file: JSON file.
        rows: names of the existing rows.

    Raises:
        UserError: a field is missing or not a number.
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
    """Add external measurements to the results, in place of earlier ones of the same framework."""
    others = [other for other in found.get("imported", []) if other["framework"] != theirs["framework"]]
    found["imported"] = [*others, theirs]


def _begin(file: Path, options: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
    """Return the results in `file`, or empty results.

    Args:
        file: `benchmark.json` of the output folder.
        options: options of the benchmark.
        here: environment of this machine.

    Raises:
        UserError: the file holds results of other options or of another machine.
    """
    command = shlex.join(["mmaction-lite", *sys.argv[1:]])
    if not file.exists():
        for name in ("benchmark.md", "benchmark.png"):
            check_replaceable(file.with_name(name), "a new file")
        return {
            "version": VERSION,
            "command": command,
            "date": time.strftime("%Y-%m-%d"),
            "options": options,
            "environment": here,
            "results": [],
        }
    found = read_result(file)
    # The number of rows that start together does not change the measurements.
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
