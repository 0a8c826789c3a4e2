"""Render benchmark results as Markdown tables and a bar chart."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from mmaction_lite.benchmark.comparison import OURS, PEER, SOURCES
from mmaction_lite.benchmark.scaling import predict_scaling
from mmaction_lite.benchmark.settings import SETTINGS
from mmaction_lite.files import write_atomically

Steps = list[list[dict[str, float]]]
FILES = {"video": "video", "frames": "JPEG frames"}
NEGLIGIBLE = 0.02  # data time as a fraction of the iteration time below which the network is the limit
MEMORY = "memory of a training step"
SOFTWARE = "mmaction-lite benchmark"  # in the field Software of the charts


@dataclass(frozen=True)
class Ratio:
    """Ratio of our time to the time of another framework, computed per round: median, minimum, maximum."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"**{self.median:.2f}** ({self.least:.2f}–{self.most:.2f})"


def seconds(rounds: Steps, stage: str = "iteration") -> float:
    """Return the median duration over all steps of all rounds; a stage that a step does not list took 0 s."""
    return statistics.median(step.get(stage, 0.0) for turn in rounds for step in turn)


def ratio(phase: dict[str, Steps]) -> Ratio | None:
    """Return the ratio of this package to the peer, or None if one of the two was not measured."""
    if PEER not in phase or OURS not in phase:
        return None
    rounds = ratios_by_round(phase)
    return Ratio(statistics.median(rounds), min(rounds), max(rounds))


def ratios_by_round(phase: dict[str, Steps]) -> list[float]:
    """Return the mean time of this package relative to the peer in each round."""
    means = {side: [statistics.fmean(s["iteration"] for s in turn) for turn in phase[side]] for side in phase}
    return [one / other for one, other in zip(means[OURS], means[PEER], strict=True)]


def files_ratio(row: dict[str, Any]) -> Ratio | None:
    """Return the ratio of the iterations from files, from videos if both sides read them."""
    return next((made for source in SOURCES if (made := ratio(row.get(source, {})))), None)


def part_ratios(row: dict[str, Any]) -> dict[str, float]:
    """Return the median ratios of this package to the peer of a row: times and memory, by name."""
    made = {"iteration from files": files_ratio(row)}
    made |= {
        name: ratio(row.get(phase, {}))
        for phase, name in (("train", "training step"), ("infer", "inference"))
    }
    found = {name: each.median for name, each in made.items() if each}
    memory = row["memory_mib"]
    return found | ({MEMORY: memory[OURS] / memory[PEER]} if PEER in memory else {})


def first_rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the first row of each setting. Rows of one setting share the measurement of this package."""
    rows: dict[str, dict[str, Any]] = {}
    for row in found["results"]:
        rows.setdefault(row["setting"], row)
    return rows


def fed(row: dict[str, Any], side: str) -> Steps | None:
    """Return the steps with data from files of one framework, or None if they were not measured."""
    return next((row[source][side] for source in SOURCES if side in row.get(source, {})), None)


def is_measured(row: dict[str, Any], side: str) -> bool:
    """Whether the training steps of one framework were measured, with or without files."""
    return side in row["train"] or fed(row, side) is not None


def data_share(rounds: Steps) -> float:
    """Return the data time of all steps as a fraction of their iteration time."""
    steps = [step for turn in rounds for step in turn]
    return sum(step.get("data", 0.0) for step in steps) / sum(step["iteration"] for step in steps)


def main_table(found: dict[str, Any], log: str) -> str:
    """Return the table with one row per setting and framework.

    Args:
        found: content of a `benchmark.json` file.
        log: Markdown link to that file.
    """
    lines = []
    for name in dict.fromkeys(row["setting"] for row in found["results"]):
        rows = [row for row in found["results"] if row["setting"] == name]
        measured = [(rows[0], OURS), *((row, PEER) for row in rows if is_measured(row, PEER))]
        lines += [_cells(found, row, side, log) for row, side in measured]
        for other in found.get("imported", []):
            for theirs in other["results"]:
                if theirs["setting"] == name:
                    lines.append(_imported_cells(rows[0], other, theirs))
    head = (
        "setting",
        "framework",
        "batch size",
        "iteration (data), s",
        "training step, s",
        "inference, s",
        "memory, MiB",
        "clips/s",
        "of peak: multiply-adds, bandwidth",
        "log",
    )
    return markdown(head, lines)


def _cells(found: dict[str, Any], row: dict[str, Any], side: str, log: str) -> tuple[str, ...]:
    files = fed(row, side)
    train = seconds(row["train"][side]) if side in row["train"] else None
    whole = seconds(files) if files else train
    assert whole is not None
    limits, measured = found["limits"], found["options"]["precision"]
    precision = (row.get("peer_precision") if side == PEER else None) or measured
    of_peak = "–"
    if train is not None:
        # The backward pass computes and moves about twice as much as the forward pass. A copy reads and
        # writes every byte.
        sums = 3 * row["multiply_adds"] / 1e9 / limits["multiply_adds"] / train
        moved = 3 * row["traffic_bytes"] / 2e9 / limits["bytes_copied"] / train
        moved *= 1.0 if precision == "float32" else 0.5
        of_peak = f"{f'{sums:.0%}' if precision == measured else '–'}, {moved:.0%}"
    devices = found["options"]["devices"]
    digits = ".3f" if found["options"]["device"] == "cpu" else ".4f"
    return (
        row["setting"],
        framework(found, row, side),
        str(row["batch_size"]) + (f" × {devices}" if devices > 1 else ""),
        f"{whole:{digits}} ({seconds(files, 'data'):{digits}})" if files else "–",
        f"{train:{digits}}" if train is not None else "–",
        f"{seconds(row['infer'][side]):{digits}}" if side in row.get("infer", {}) else "–",
        f"{row['memory_mib'][side]:.0f}" if side in row["memory_mib"] else "–",
        f"{devices * row['batch_size'] / whole:.{2 if whole > 0.1 else 0}f}",
        of_peak,
        log,
    )


def framework(found: dict[str, Any], row: dict[str, Any], side: str) -> str:
    """Return name and version of a framework, with its precision if that differs from the table's."""
    is_as_published = side == PEER and row.get("peer_precision") == "float32"
    return row["frameworks"][side] + (
        ", float32" if is_as_published and found["options"]["precision"] != "float32" else ""
    )


def _imported_cells(ours: dict[str, Any], other: dict[str, Any], theirs: dict[str, Any]) -> tuple[str, ...]:
    iteration, data, memory = (theirs.get(n) for n in ("iteration_seconds", "data_seconds", "memory_mib"))
    return (
        ours["setting"],
        f"{other['framework']}, measured by {other['measured_by']}",
        str(theirs["batch_size"]),
        f"{iteration:.3f}" + (f" ({data:.3f})" if data is not None else ""),
        "–",
        "–",
        f"{memory:.0f}" if memory is not None else "–",
        f"{theirs['batch_size'] / iteration:.2f}",
        "–",
        "–",
    )


def ratio_table(found: dict[str, Any]) -> str:
    """Return the table with the ratios of this package to each other framework."""
    lines = []
    for row in found["results"]:
        if not is_measured(row, PEER):
            continue
        memory = row["memory_mib"]
        ratios = [files_ratio(row), *(ratio(row.get(phase, {})) for phase in ("train", "infer"))]
        check = row.get("check")
        lines.append(
            (
                row["setting"],
                framework(found, row, PEER),
                *(str(found) if found else "–" for found in ratios),
                f"**{memory[OURS] / memory[PEER]:.2f}**" if PEER in memory else "–",
                f"{check['difference']:.0e}" if check else "–",
            )
        )
    head = (
        "setting",
        "framework",
        "iteration from files",
        "training step",
        "inference",
        "memory",
        "difference of logits",
    )
    return markdown(head, lines)


def behind(found: dict[str, Any]) -> list[str]:
    """Return one line per measurement in which another framework is ahead."""
    lines = []
    for row in found["results"]:
        if not is_measured(row, PEER):
            continue
        lines += [
            f"* {row['setting']}, {framework(found, row, PEER)}: {what} {value:.2f}"
            for what, value in part_ratios(row).items()
            if value > 1
        ]
    return lines


def stage_table(found: dict[str, Any]) -> str:
    """Return the table with the duration of each stage of our training step."""
    stages = ("copy", "normalise", "forward", "backward", "optimizer")
    lines = []
    for setting, row in first_rows(found).items():
        steps = [row["stages"]]
        files = fed(row, OURS)
        data = f"{1000 * seconds(files, 'data'):.1f}" if files else "–"
        times = [f"{1000 * seconds(steps, stage):.1f}" for stage in stages]
        inside = [_products(found, row, phase, passes) for phase, passes in (("train", 3), ("infer", 1))]
        lines.append((setting, data, *times, *inside))
    head = (
        "setting, ms",
        "data time",
        *stages,
        "matrix operations, training",
        "matrix operations, inference",
    )
    return markdown(head, lines)


def _products(found: dict[str, Any], row: dict[str, Any], phase: str, passes: int) -> str:
    """Return the time share of convolutions and matrix products, and their rate relative to the peak rate."""
    spent = row.get("profile", {}).get(phase)
    if spent is None:
        return "–"
    rate = passes * row["multiply_adds"] / 1e9 / spent["products"]
    share = spent["products"] / sum(spent.values())
    return f"{share:.0%} at {rate / found['limits']['multiply_adds']:.0%}"


def feeding_table(found: dict[str, Any]) -> str:
    """Return the table with the decoding cost per clip and the stage that limits the iteration."""
    lines = []
    for setting, row in first_rows(found).items():
        files, read = fed(row, OURS), row.get("read_milliseconds", {})
        if files is None:
            continue
        rate = row["batch_size"] / seconds(row["train"][OURS])
        costs = [
            f"{read[source]:.1f} ({rate * read[source] / 1000:.2g})" if source in read else "–"
            for source in SOURCES
        ]
        source = next(source for source in SOURCES if source in row)
        share = data_share(files)
        is_fed = share < NEGLIGIBLE or rate * read[source] / 1000 < 0.5 * found["options"]["workers"]
        limit = "network" if is_fed else "decoding"
        lines.append((setting, f"{rate:.3g}", *costs, FILES[source], f"{share:.1%}", limit))
    head = (
        "setting",
        "clips/s without data loading",
        "CPU ms per clip (workers needed), video",
        "CPU ms per clip (workers needed), JPEG frames",
        "data source",
        "data time",
        "limited by",
    )
    return markdown(head, lines)


def first_page_table(found: dict[str, Any]) -> str:
    """Return the numbers of the original benchmark page, with the throughput of the measured GPU, if any."""
    ours = first_rows(found)
    is_gpu = found["options"]["device"] == "cuda"
    lines = []
    for setting in SETTINGS:
        row, now = ours.get(setting.name), ("–",) * is_gpu
        if is_gpu and row:
            now = (f"{row['batch_size'] / seconds(fed(row, OURS) or row['train'][OURS]):.0f}",)
        for cell in setting.page:
            numbers = (f"{cell.iteration_seconds:.4f} ({cell.data_seconds:.4f})", str(cell.memory_mb))
            then = f"{cell.batch / cell.iteration_seconds:.0f}"
            lines.append((setting.name, cell.framework, *numbers, then, *now, cell.note))
        if not setting.page and "first page" in setting.about and "Not on" not in setting.about:
            lines.append((setting.name, "–", "empty", "empty", "–", *now, ""))
    here = (f"clips/s of one {found['environment']['device']}, mmaction-lite today",) if is_gpu else ()
    head = ("setting", "framework", "iteration (data), s", "memory, MB", "clips/s of one V100")
    return markdown((*head, *here, "known errors"), lines)


def scaling_table(found: dict[str, Any]) -> str:
    """Return the table with predicted and measured iteration times of several processes."""
    lines = []
    for row in found["results"]:
        made = check_scaling(row, found["options"]["devices"])
        numbers = (made["apart"], made["exchange"], made["predicted"], made["measured"])
        sharded = f"{seconds(row['sharded'][OURS]):.3f}" if "sharded" in row else "–"
        accuracy = f"{made['predicted'] / made['measured']:.2f}"
        lines.append((row["setting"], *(f"{n:.3f}" for n in numbers), accuracy, sharded))
    head = (
        "setting",
        "step without all-reduce, s",
        "all-reduce alone, s",
        "predicted, s",
        "measured, s",
        "predicted / measured",
        "measured with FSDP2, s",
    )
    return markdown(head, lines)


def check_scaling(row: dict[str, Any], devices: int) -> dict[str, float]:
    """Predict the iteration time of several processes from their step time and all-reduce time.

    Returns:
        seconds: "apart" (step without all-reduce), "exchange" (all-reduce alone), "predicted", "measured".
    """
    apart, exchange = seconds(row["apart"][OURS]), seconds(row["link"][OURS])
    gradient_bytes = 4 * row["parameters"]
    prediction = predict_scaling(
        devices,
        batch_size=row["batch_size"],
        step_seconds=apart,
        backward_seconds=seconds([row["stages"]], "backward"),
        gradient_bytes=gradient_bytes,
        link_bytes_per_second=2 * (devices - 1) / devices * gradient_bytes / exchange,
    )
    return {
        "apart": apart,
        "exchange": exchange,
        "predicted": prediction.iteration,
        "measured": seconds(row["train"][OURS]),
    }


def picture(found: dict[str, Any], file: Path) -> None:
    """Draw the ratios of this package to each other framework as a bar chart, into a PNG file."""
    from matplotlib.figure import Figure

    rows = [row for row in found["results"] if is_measured(row, PEER)]
    figure = Figure(figsize=(9, 1.5 + 0.55 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots()
    labels = ["iteration from files", "training step", "inference", MEMORY]
    for number, row in enumerate(rows):
        for what, value in part_ratios(row).items():
            place = labels.index(what)
            axes.barh(number + 0.2 * place - 0.3, value, 0.18, color=f"C{place}")
    for place, label in enumerate(labels):
        axes.barh(0, 0, color=f"C{place}", label=label)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row['setting']}\n{framework(found, row, PEER)}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("mmaction-lite / other framework (lower is better)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.06), ncols=4, frameon=False)
    metadata = {"Software": SOFTWARE}
    write_atomically(file, lambda out: figure.savefig(out, format="png", dpi=110, metadata=metadata))


def describe(found: dict[str, Any]) -> str:
    """Return the paragraph with the command, the machine and its peak rates."""
    options, here, limits = found["options"], found["environment"], found["limits"]
    machine = ", ".join(f"{name} {value}" for name, value in here.items())
    decoding = (
        f"{options['workers']} decoding workers, clips from {options['data']}"
        if options["data"] and any(fed(row, OURS) for row in found["results"])
        else "without data loading"
    )
    if (together := options.get("at_once", 1)) > 1:
        decoding = f"{together} rows on the device at the same time, {decoding}"
    return (
        f"`{found['command']}`, {found['date']}: {options['devices']} × {options['device']}, "
        f"{options['threads']} threads, {options['precision']}"
        f"{', compiled: ' + options['compile'] if options['compile'] else ''}, rounds: {options['rounds']}, "
        f"{decoding}. {machine}. Peak rates of the machine: "
        f"{limits['multiply_adds']:.0f} · 10⁹ multiply-adds/s "
        f"({options['precision']} matrix product), {limits['bytes_copied']:.1f} GB/s (copy)."
    )


def errors(found: dict[str, Any]) -> list[str]:
    """Return one line per row that failed, with its error."""
    crowd = found["options"].get("at_once", 1)
    beside = f" ({crowd} rows shared the memory of the device)" if crowd > 1 else ""
    return [
        f"{row['setting']}, "
        f"{' '.join([row['peer'], row['peer_precision']] if row['peer'] else ['mmaction-lite'])}: "
        f"{shorten(row['error'], 60)}"
        f"{beside if 'OutOfMemory' in row['error'] else ''}"
        for row in found["results"]
        if "error" in row
    ]


def write_tables(found: dict[str, Any], folder: Path) -> str:
    """Write `benchmark.md` and `benchmark.png` into `folder` and return the Markdown text."""
    tables = [describe(found), *([found["note"]] if "note" in found else [])]
    if found["results"]:
        tables += [main_table(found, "[json](benchmark.json)")]
        tables += [scaling_table(found)] if found["options"]["devices"] > 1 else [ratio_table(found)]
        tables += [stage_table(found)]
        tables += [feeding_table(found)] if is_fed_from_files(found) else []
    tables += [f"* {line}" for line in errors(found)]
    text = "\n\n".join(tables) + "\n"
    write_atomically(folder / "benchmark.md", lambda file: file.write(text.encode()))
    picture(found, folder / "benchmark.png")
    return text


def is_fed_from_files(found: dict[str, Any]) -> bool:
    """Whether any row was measured with data from files."""
    return any(fed(row, OURS) and "read_milliseconds" in row for row in found["results"])


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
