"""Results of the benchmark as tables, a picture and a page of the documentation."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from mmaction_lite.benchmark.scaling import predict_scaling
from mmaction_lite.benchmark.settings import SETTINGS
from mmaction_lite.benchmark.turns import OURS, PEER, SOURCES
from mmaction_lite.files import write_atomically

Steps = list[list[dict[str, float]]]
FILES = {"video": "video", "frames": "JPEG frames"}
LITTLE = 0.02  # of an iteration: waiting that is not worth speaking of
PARTS = {"video": "iteration from video", "train": "training step", "infer": "inference"}
MEMORY = "memory of a step"


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs, round by round: median, least and most."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"**{self.median:.2f}** ({self.least:.2f}–{self.most:.2f})"


def seconds(turns: Steps, stage: str = "iteration") -> float:
    """The median over all steps of all turns; a stage that a step does not name took no time."""
    return statistics.median(step.get(stage, 0.0) for turn in turns for step in turn)


def ratio(phase: dict[str, Steps]) -> Ratio | None:
    """None where the peer took no part."""
    if PEER not in phase:
        return None
    means = {side: [statistics.fmean(s["iteration"] for s in turn) for turn in phase[side]] for side in phase}
    rounds = [ours / theirs for ours, theirs in zip(means[OURS], means[PEER], strict=True)]
    return Ratio(statistics.median(rounds), min(rounds), max(rounds))


def first_rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The first row of each setting: what is said of ours alone is the same in all of them."""
    rows: dict[str, dict[str, Any]] = {}
    for row in found["results"]:
        rows.setdefault(row["setting"], row)
    return rows


def fed(row: dict[str, Any], side: str) -> Steps | None:
    """A side's steps from files, None where there are none."""
    return next((row[source][side] for source in SOURCES if side in row.get(source, {})), None)


def data_share(turns: Steps) -> float:
    """Of the time of all steps, what they waited for clips."""
    steps = [step for turn in turns for step in turn]
    return sum(step.get("data", 0.0) for step in steps) / sum(step["iteration"] for step in steps)


def main_table(found: dict[str, Any], log: str) -> str:
    """A row for every setting and framework, in the first page's form; `log` links to the numbers."""
    lines = []
    for name in dict.fromkeys(row["setting"] for row in found["results"]):
        rows = [row for row in found["results"] if row["setting"] == name]
        measured = [(rows[0], OURS), *((row, PEER) for row in rows if PEER in row["train"])]
        lines += [_cells(found, row, side, log) for row, side in measured]
        for other in found.get("imported", []):
            for theirs in other["results"]:
                if theirs["setting"] == name:
                    lines.append(_imported_cells(rows[0], other, theirs))
    head = (
        "setting",
        "framework",
        "clips a step",
        "iteration (data), s",
        "step alone, s",
        "inference, s",
        "memory, MiB",
        "clips/s",
        "of the limit: sums, bytes",
        "log",
    )
    return _table(head, lines)


def _cells(found: dict[str, Any], row: dict[str, Any], side: str, log: str) -> tuple[str, ...]:
    train = seconds(row["train"][side])
    files = fed(row, side)
    whole = seconds(files) if files else train
    limits, measured = found["limits"], found["options"]["precision"]
    precision = (row.get("peer_precision") if side == PEER else None) or measured
    # Backward passes compute and move about twice what forward passes do. A copied byte is read and written.
    sums = 3 * row["multiply_adds"] / 1e9 / limits["multiply_adds"] / train
    moved = 3 * row["traffic_bytes"] / 2e9 / limits["bytes_copied"] / train
    moved *= 1.0 if precision == "float32" else 0.5
    devices = found["options"]["devices"]
    digits = ".3f" if found["options"]["device"] == "cpu" else ".4f"
    return (
        row["setting"],
        _framework(found, row, side),
        str(row["batch_size"]) + (f" × {devices}" if devices > 1 else ""),
        f"{whole:{digits}} ({seconds(files, 'data'):{digits}})" if files else "–",
        f"{train:{digits}}",
        f"{seconds(row['infer'][side]):{digits}}" if side in row.get("infer", {}) else "–",
        f"{row['memory_mib'][side]:.0f}" if side in row["memory_mib"] else "–",
        f"{devices * row['batch_size'] / whole:.{2 if whole > 0.1 else 0}f}",
        f"{f'{sums:.0%}' if precision == measured else '–'}, {moved:.0%}",
        log,
    )


def _framework(found: dict[str, Any], row: dict[str, Any], side: str) -> str:
    """Its name and version, and its precision where ours is reduced and its own is not."""
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
    """Ours over each peer."""
    lines = []
    for row in found["results"]:
        if PEER not in row["train"]:
            continue
        memory = row["memory_mib"]
        ratios = [ratio(row[phase]) if phase in row else None for phase in ("video", "train", "infer")]
        check = row.get("check")
        lines.append(
            (
                row["setting"],
                _framework(found, row, PEER),
                *(str(found) if found else "–" for found in ratios),
                f"**{memory[OURS] / memory[PEER]:.2f}**" if PEER in memory else "–",
                f"{check['difference']:.0e}" if check else "–",
            )
        )
    head = (
        "setting",
        "peer",
        "iteration from video",
        "step alone",
        "inference",
        "memory",
        "logits differ by",
    )
    return _table(head, lines)


def behind(found: dict[str, Any]) -> list[str]:
    """A line for everything in which a peer is ahead."""
    lines = []
    for row in found["results"]:
        if PEER not in row["train"]:
            continue
        made = {what: ratio(row[phase]) for phase, what in PARTS.items() if phase in row}
        ratios = [(what, each.median) for what, each in made.items() if each]
        if PEER in row["memory_mib"]:
            ratios.append((MEMORY, row["memory_mib"][OURS] / row["memory_mib"][PEER]))
        lines += [
            f"* {row['setting']}, {_framework(found, row, PEER)}: {what} {value:.2f}"
            for what, value in ratios
            if value > 1
        ]
    return lines


def stage_table(found: dict[str, Any]) -> str:
    """Where a step of ours spends its time."""
    stages = ("copy", "normalise", "forward", "backward", "optimizer")
    lines = []
    for setting, row in first_rows(found).items():
        steps = [row["stages"]]
        files = fed(row, OURS)
        data = f"{1000 * seconds(files, 'data'):.1f}" if files else "–"
        times = [f"{1000 * seconds(steps, stage):.1f}" for stage in stages]
        inside = [_products(found, row, phase, passes) for phase, passes in (("train", 3), ("infer", 1))]
        lines.append((setting, data, *times, *inside))
    head = ("setting, ms", "wait for data", *stages, "in products, training", "in products, inference")
    return _table(head, lines)


def _products(found: dict[str, Any], row: dict[str, Any], phase: str, passes: int) -> str:
    """The share of a step's operators that are convolutions and matrix products, and how fast these are."""
    spent = row.get("profile", {}).get(phase)
    if spent is None:
        return "–"
    rate = passes * row["multiply_adds"] / 1e9 / spent["products"]
    share = spent["products"] / sum(spent.values())
    return f"{share:.0%} at {rate / found['limits']['multiply_adds']:.0%}"


def feeding_table(found: dict[str, Any]) -> str:
    """Whether the decoding processes keep up, and what from."""
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
        is_fed = share < LITTLE or rate * read[source] / 1000 < 0.5 * found["options"]["workers"]
        limit = "network" if is_fed else "decoding"
        lines.append((setting, f"{rate:.3g}", *costs, FILES[source], f"{share:.1%}", limit))
    head = (
        "setting",
        "clips/s of the network alone",
        "CPU ms a clip (processes needed), video",
        "the same, JPEG frames",
        "fed from",
        "waits for data",
        "limit",
    )
    return _table(head, lines)


def first_page_table(found: dict[str, Any]) -> str:
    """What the first page printed, beside what one GPU does now if it was a GPU that was measured."""
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
    here = (f"clips/s of one {found['environment']['device']}, ours now",) if is_gpu else ()
    head = ("setting", "framework", "iteration (data), s", "memory, MB", "clips/s of one V100")
    return _table((*head, *here, "what is wrong with it"), lines)


def scaling_table(found: dict[str, Any]) -> str:
    """What was predicted for several processes, and what they took."""
    lines = []
    for row in found["results"]:
        made = check_scaling(row, found["options"]["devices"])
        numbers = (made["apart"], made["exchange"], made["predicted"], made["measured"])
        lines.append(
            (row["setting"], *(f"{n:.3f}" for n in numbers), f"{made['predicted'] / made['measured']:.2f}")
        )
    head = ("setting", "apart, s", "exchange alone, s", "predicted, s", "together, s", "predicted / measured")
    return _table(head, lines)


def check_scaling(row: dict[str, Any], devices: int) -> dict[str, float]:
    """What several processes should take, from what they take apart and the link between them."""
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
    """Ours over each peer, as bars, into a .png."""
    from matplotlib.figure import Figure

    rows = [row for row in found["results"] if PEER in row["train"]]
    figure = Figure(figsize=(9, 1.5 + 0.55 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots()
    labels = [*PARTS.values(), MEMORY]
    for number, row in enumerate(rows):
        values = {what: ratio(row[phase]) for phase, what in PARTS.items() if phase in row}
        bars = {what: each.median for what, each in values.items() if each}
        if PEER in row["memory_mib"]:
            bars[MEMORY] = row["memory_mib"][OURS] / row["memory_mib"][PEER]
        for what, value in bars.items():
            place = labels.index(what)
            axes.barh(number + 0.2 * place - 0.3, value, 0.18, color=f"C{place}")
    for place, label in enumerate(labels):
        axes.barh(0, 0, color=f"C{place}", label=label)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row['setting']}\n{_framework(found, row, PEER)}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("mmaction-lite / peer: shorter is better")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.06), ncols=4, frameon=False)
    write_atomically(file, lambda out: figure.savefig(out, format="png", dpi=110))


def describe(found: dict[str, Any]) -> str:
    """How the numbers were made: command, machine, limits."""
    options, here, limits = found["options"], found["environment"], found["limits"]
    machine = ", ".join(f"{name} {value}" for name, value in here.items())
    decoding = (
        f"{options['workers']} decoding processes, clips from {options['data']}"
        if options["data"] and any(fed(row, OURS) for row in found["results"])
        else "no files"
    )
    if (together := options.get("at_once", 1)) > 1:
        decoding = f"{together} rows on the device together, {decoding}"
    return (
        f"`{found['command']}`, {found['date']}: {options['devices']} × {options['device']}, "
        f"{options['threads']} threads, {options['precision']}"
        f"{', compiled: ' + options['compile'] if options['compile'] else ''}, rounds: {options['rounds']}, "
        f"{decoding}. {machine}. The machine's best: {limits['multiply_adds']:.0f} · 10⁹ multiply-adds/s "
        f"({options['precision']} matrix product), {limits['bytes_copied']:.1f} GB/s copied."
    )


def errors(found: dict[str, Any]) -> list[str]:
    """What peers could not do."""
    crowd = found["options"].get("at_once", 1)
    beside = f" (beside the processes of {crowd} rows: its own memory is not why)" if crowd > 1 else ""
    return [
        f"{row['setting']}, {row['peer']} {row['peer_precision']}: {shorten(row['error'], 60)}"
        f"{beside if 'OutOfMemory' in row['error'] else ''}"
        for row in found["results"]
        if "error" in row
    ]


def write_tables(found: dict[str, Any], folder: Path) -> str:
    """`benchmark.md` and `benchmark.png` beside the results; the tables."""
    tables = [describe(found)]
    if found["results"]:
        tables += [main_table(found, "[json](benchmark.json)")]
        tables += [scaling_table(found)] if found["options"]["devices"] > 1 else [ratio_table(found)]
        tables += [stage_table(found)]
        tables += [feeding_table(found)] if _feeds(found) else []
    tables += [f"* {line}" for line in errors(found)]
    text = "\n\n".join(tables) + "\n"
    write_atomically(folder / "benchmark.md", lambda file: file.write(text.encode()))
    picture(found, folder / "benchmark.png")
    return text


def write_page(results: Sequence[tuple[Path, dict[str, Any]]], page: Path) -> None:
    """The documentation's page, with a picture of the first results beside each of their files."""
    for file, found in results:
        if found["options"]["devices"] == 1:
            picture(found, file.with_suffix(".png"))
    text = render_page(results, page.parent)
    write_atomically(page, lambda out: out.write(text.encode()))


def render_page(results: Sequence[tuple[Path, dict[str, Any]]], folder: Path) -> str:
    """The page's text; `folder` is where it stands."""
    alone = [(file, found) for file, found in results if found["options"]["devices"] == 1]
    teams = [(file, found) for file, found in results if found["options"]["devices"] > 1]
    parts = [HEAD]
    for file, found in alone:
        link = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()
        here = found["environment"]
        parts += [
            f"## {here['processor'] if here['device'] == 'cpu' else here['device']}",
            describe(found),
            main_table(found, f"[json]({link})"),
            "### Ours over theirs",
            RATIOS,
            ratio_table(found),
            *(["A peer is ahead in:", "\n".join(behind(found))] if behind(found) else []),
            f"![ratios]({Path(link).with_suffix('.png').as_posix()})",
            "### Where a step goes",
            STAGES,
            stage_table(found),
            *(["### Whether decoding keeps up", FEEDING, feeding_table(found)] if _feeds(found) else []),
            *(
                ["What peers could not do:", "\n".join(f"* {line}" for line in errors(found))]
                if errors(found)
                else []
            ),
        ]
    if alone:
        gpus = [found for _, found in alone if found["options"]["device"] == "cuda"]
        shown = gpus[0] if gpus else alone[0][1]
        parts += ["## The first page's numbers", FIRST_PAGE, first_page_table(shown), _settings()]
    parts += ["## More devices", SCALING]
    for _, found in teams:
        parts += [describe(found), scaling_table(found)]
    return "\n\n".join(parts) + "\n"


def _feeds(found: dict[str, Any]) -> bool:
    return any(fed(row, OURS) and "read_milliseconds" in row for row in found["results"])


def _settings() -> str:
    lines = [
        (setting.name, f"`{setting.build().name}`" if isinstance(setting.recipe, str) else "–", setting.about)
        for setting in SETTINGS
    ]
    return _table(("setting", "recipe", "about"), lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


HEAD = """\
# Benchmark

This page is written by `mmaction-lite benchmark page docs/benchmarks/*.json --out docs/benchmark.md`: every
number comes from one of those files, which `mmaction-lite benchmark` wrote with the command that stands
above each table, and a test fails when page and files differ.

What is compared is the whole: each framework's own training step with its own optimizer and preprocessing,
on the same number of clips of the same shape, with the same number of threads. Frameworks work in turns,
one process each, and while one works the others are stopped; the ratio is taken round by round. Numbers of
one table can be compared with each other, numbers of different tables cannot.

* *iteration (data)*: a training step with clips from H.264 files, decoded by as many processes as there are
  cores, or, where a GPU takes more clips than these can decode, from JPEG frames; in brackets, how long it
  waited for clips. Median over all steps.
* *step alone*: the same with pixels that are there already, in the memory from which each framework's loader
  hands them over.
* *inference*: the same clips through the test path: preprocessing, network, probabilities.
* *memory*: how far training steps raise the peak of the process (on a GPU: of what PyTorch allocates, weights
  and the trials of cuDNN included).
* *of the limit*: the multiply-adds of a training step (three times those of the forward pass) over what the
  machine's matrix product does in that time, and the bytes that the operators read and write over what it
  copies; the first for the precision alone whose matrix product was measured.
* *clips/s*: of the iteration with data, where that was measured, of the step alone elsewhere.

Where ours is in bfloat16, MMAction2's autocast is in float16, for its heads hand logits to NumPy, which has
no bfloat16. Other users of a machine make single numbers vary by a tenth and more; ratios vary less. A +
behind a commit says that files of the package were changed since.

`make peers` installs the other frameworks, each in an environment of its own, and `mmaction-lite benchmark`
then measures beside them. Who has MIT's TSM or PySlowFast, which have no packages, adds numbers of theirs
with `--peer-result FILE`, and the page says who measured them."""

RATIOS = """\
Median of the rounds, and the least and the most. Below 1 ours is faster or smaller. *Logits differ by* is
the largest difference after our converter has read the peer's weights, over the largest logit: both are the
same network. It is measured on processors alone."""

STAGES = """\
Ours, milliseconds, median. Backward contains the loss. *In products*: the share of the time inside operators
that is spent in convolutions and matrix products, and how fast these are in units of the machine's matrix
product. Only the rest could be spared without faster kernels or less arithmetic. On a GPU every stage is
waited for, and together they take longer than a step, in which the processor runs ahead."""

FEEDING = """\
Processor time to read one training clip, open to crop, and how many decoding processes the network alone
would keep busy. Where videos need more than three quarters of those that there are, JPEG frames take their
place."""

FIRST_PAGE = """\
Of the page that this project began from (8 V100 with 32 GB, two Xeon Gold 6148, PyTorch 1.4, 2020; the
batch is that of one GPU). They are printed as history: hardware and batch differ, so they are not to be
compared with those above."""

SCALING = """\
`torchrun --standalone --nproc-per-node 8 -m mmaction_lite train RECIPE --data DATA --out OUT` trains on
eight GPUs of one machine; for several machines see [training.md](training.md). `mmaction-lite benchmark
--devices N --synthetic` measures N processes that train together, and

```
mmaction-lite benchmark scaling RESULT.json --recipe RECIPE --devices 8 --link-gb 50 --loader-clips 400
```

says what N devices will take, from a step of one, the bytes of its gradients, the rate of the slowest link
and what the decoding processes deliver. It was checked against processes on this machine: each does its
steps *apart*, then exchanges as many numbers as it has gradients and nothing else, then both together. They
share memory and caches, which is why *apart* and not a process alone is what the prediction starts from."""
