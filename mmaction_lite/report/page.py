"""One HTML file about one or several runs: curves, confusion, classes, worst videos, protocol, recipe.

The file is self-contained: pictures are data URIs, and nothing is loaded from elsewhere when it is read.
"""

import base64
import csv
import io
import json
import re
import shlex
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from mmaction_lite.data.sources.source import open_source
from mmaction_lite.errors import UserError
from mmaction_lite.files import write_atomically
from mmaction_lite.tasks.metrics import LONG_TITLES, TITLES, most_confused
from mmaction_lite.tasks.named import task_from_json, task_of_targets
from mmaction_lite.tasks.task import ClassResults, Task

Row = dict[str, Any]

MOST_WORST_VIDEOS = 12
MOST_CONFUSED_PAIRS = 20
LARGEST_NUMBERED_MATRIX = 30  # classes; beyond, numbers no longer fit on a screen and the matrix is an image
MOST_POINTS = 1000  # of a training curve
THUMBNAIL_HEIGHT = 160  # pixels

TRAINING, VALIDATION, SECOND, THIRD = "#3f7df0", "#e8772e", "#2fa37c", "#a05bc4"
INK, GRID = "#7c7f85", "#7c7f86"  # stand-ins, replaced in the SVG by colours that follow light and dark mode
SVG_COLOURS = (
    ":root{--ink:#4b5563;--grid:#d9dde3}"
    "@media(prefers-color-scheme:dark){:root{--ink:#aeb6c2;--grid:#343b46}}"
)


# Reading a run folder ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scores:
    """A score file: paths and labels of N videos, probabilities (N, K), K class names, protocol, task."""

    file: Path
    paths: list[str]
    labels: np.ndarray
    scores: np.ndarray
    class_names: list[str]
    protocol: str
    task: Task


@dataclass(frozen=True, eq=False)
class RunFolder:
    """What a run folder holds; `scores` is None before the first validation or test wrote a score file."""

    folder: Path
    name: str
    recipe: str
    training: list[Row]
    validation: list[Row]
    scores: Scores | None
    quarantine: list[Row]


def read_run(folder: Path) -> RunFolder:
    """Read a run folder; the test's scores win over the validation's.

    Raises UserError, naming the file, for one that is missing or damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder; give the one named by --out when training")
    recipe = _read_text(folder / "recipe.txt")
    rows = _read_rows(folder / "metrics.jsonl", "step", "epoch")
    if not rows:
        raise UserError(f"{folder / 'metrics.jsonl'}: holds no row; train until the first one is written")
    score_file = next((f for f in (folder / "test.npz", folder / "val.npz") if f.exists()), None)
    quarantine = folder / "quarantine.jsonl"
    return RunFolder(
        folder=folder,
        name=_name(recipe) or folder.resolve().name,
        recipe=recipe,
        training=[row for row in rows if "split" not in row],
        validation=[row for row in rows if row.get("split") == "val"],
        scores=read_scores(score_file) if score_file else None,
        quarantine=_read_rows(quarantine, "path", "reason") if quarantine.exists() else [],
    )


def read_scores(file: Path) -> Scores:
    """Read a score file (`.npz`); raises UserError if it is damaged or its arrays do not fit together."""
    again = "write it again with `mmaction-lite test WEIGHTS --data DATA --dump FILE`"
    try:
        with np.load(file, allow_pickle=False) as arrays:
            paths = [str(path) for path in arrays["paths"]]
            labels, scores = arrays["labels"], arrays["scores"]
            class_names = [str(name) for name in arrays["class_names"]]
            protocol = str(arrays["protocol"])
            # Score files of other programs may lack the task.
            task = task_from_json(str(arrays["task"])) if "task" in arrays else task_of_targets(labels)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file}: damaged score file ({error}); {again}") from error
    found = {"labels": labels, "scores": scores}
    shapes = {name: array.shape for name, array in found.items()}
    sizes = len(paths), len(class_names)
    if shapes != {"labels": task.target_shape(*sizes), "scores": sizes}:
        raise UserError(
            f"{file}: {len(paths)} paths and {len(class_names)} class names do not fit "
            f"labels of shape {shapes['labels']} and scores of shape {shapes['scores']}; {again}"
        )
    if not len(labels):
        raise UserError(f"{file}: holds no video; {again}")
    try:
        task.check_targets(labels, len(class_names))
    except ValueError as error:
        raise UserError(f"{file}: {error}; correct the annotations and {again}") from None
    return Scores(file, paths, labels, scores, class_names, protocol, task)


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file}: cannot be read ({error}); give a run folder written by `mmaction-lite train`"
        ) from error


def _read_rows(file: Path, *keys: str) -> list[Row]:
    """Rows of a JSON-lines file, each with `keys`; without a last line that a killed run half wrote."""
    lines = _read_text(file).splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not row.keys() >= set(keys):
                raise ValueError(f"expected an object with {' and '.join(keys)}")
            rows.append(row)
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise UserError(f"{file}, line {number}: damaged ({error}); delete this line") from error
    return rows


def _name(recipe: str) -> str:
    """Recipe and seed, from the first line of `recipe.txt`; marked where `--set` changed the recipe."""
    first, _, rest = recipe.partition("\n")
    is_modified = re.search(r"modified=\([^)]", rest)
    return first.removeprefix("# ") + " (modified)" * bool(is_modified) if first.startswith("# ") else ""


# Figures -----------------------------------------------------------------------------------------------


def data_uri(content: bytes, media_type: str) -> str:
    """`content` as a `data:` address that stands in the page itself."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over a fortieth of the curve (N,); the window shrinks at both ends."""
    window = np.ones(max(1, len(values) // 40) * 2 - 1)
    same = (len(window) - 1) // 2, (len(window) - 1) // 2 + len(values)
    return (np.convolve(values, window) / np.convolve(np.ones(len(values)), window))[slice(*same)]


def _column(rows: list[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values, float (N,) each, of the rows that have a finite value under `key`."""
    pairs = [(row["epoch"], row[key]) for row in rows if key in row]
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    return table[:, 0], table[:, 1]


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.2, 2.5))
    figure.subplots_adjust(left=0.13, right=0.985, bottom=0.18, top=0.88)
    axes = figure.subplots()
    axes.spines[:].set_visible(False)
    axes.grid(color=GRID, linewidth=0.7)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("epoch", color=INK, fontsize=9)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as a data URI: text in the reader's system font, colours that follow light and dark mode."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue().replace(INK, f"var(--ink,{INK})").replace(GRID, f"var(--grid,{GRID})")
    svg = svg.replace('<style type="text/css">', f'<style type="text/css">{SVG_COLOURS}', 1)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    return data_uri(svg.encode(), "image/svg+xml")


def _curve(title: str, scale: float, *series: tuple[list[Row], str, str, str]) -> Row | None:
    """A figure as dict title, uri, alt, of series (rows, key, label, colour); None where all lack numbers."""
    figure, axes = _axes()
    summaries, top = [], 0.0
    for rows, key, label, colour in series:
        epochs, values = _column(rows, key)
        if not len(values):
            continue
        values = values * scale
        if "split" in rows[0]:  # validations: few and exact
            axes.plot(epochs, values, color=colour, label=label, linewidth=1.6, marker="o", markersize=3.5)
        else:
            some = slice(None, None, -(-len(values) // MOST_POINTS))
            axes.plot(epochs[some], values[some], color=colour, linewidth=0.8, alpha=0.3)
            values = smooth(values)
            axes.plot(epochs[some], values[some], color=colour, label=label, linewidth=1.8)
        top = max(top, float(np.percentile(values, 98)))
        summaries.append(f"{label} from {values[0]:.4g} to {values[-1]:.4g}")
    if not summaries:
        return None
    if top > 0:  # a first iteration of ten seconds must not flatten the others
        axes.set_ylim(0, 1.12 * top)
    if len(summaries) > 1:
        axes.legend(
            loc="lower left",  # above the frame: inside it would cover some curve
            bbox_to_anchor=(-0.02, 0.98),
            ncols=len(summaries),
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            columnspacing=1.0,
            handlelength=1.2,
            handletextpad=0.5,
        )
    return {"title": title, "uri": _svg(figure), "alt": f"{title} over epochs: {'; '.join(summaries)}."}


def curves(training: list[Row], validation: list[Row]) -> list[Row]:
    """Figures of the rows of `metrics.jsonl`, as dicts title, uri, alt."""
    loss = _curve(
        "Loss",
        1,
        (training, "loss", "training", TRAINING),
        (validation, "loss", "validation", VALIDATION),
    )
    accuracy = _curve(
        "Accuracy (%)",
        100,
        (training, "top1", "training top-1", TRAINING),
        (validation, "top1", "validation top-1", VALIDATION),
        (validation, "top5", "validation top-5", SECOND),
        (validation, "action_top1", "validation action top-1", VALIDATION),
        (validation, "verb_top1", "validation verb top-1", SECOND),
        (validation, "noun_top1", "validation noun top-1", THIRD),
    )
    rate = _curve("Learning rate", 1, (training, "lr", "learning rate", TRAINING))
    time = _curve(
        "Time per iteration (ms)",
        1000,
        (training, "iteration_seconds", "whole iteration", TRAINING),
        (training, "data_seconds", "waiting for data", VALIDATION),
    )
    return [figure for figure in (loss, accuracy, rate, time) if figure]


def matrix_image(matrix: np.ndarray) -> str:
    """A confusion matrix (K, K) of many classes as an SVG data URI; rows are shares of the true class."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6, 6.35), layout="constrained")
    axes = figure.subplots()
    # Mistakes are spread thin over many classes: on a linear scale only the diagonal would be seen.
    norm = AsinhNorm(linear_width=0.01, vmin=0, vmax=1)
    on_diagonal = np.eye(len(share), dtype=bool)
    for colour, hidden in ((TRAINING, ~on_diagonal), (VALIDATION, on_diagonal)):
        faint_to_full = LinearSegmentedColormap.from_list("share", [(*to_rgb(colour), 0.15), colour])
        cells = np.ma.masked_where(hidden | (share == 0), share)
        picture = axes.imshow(cells, norm=norm, cmap=faint_to_full, interpolation="none")
    axes.set_xlabel("predicted class (number)", color=INK)
    axes.set_ylabel("true class (number)", color=INK)
    ticks = [0.01, 0.05, 0.2, 0.5, 1]
    bar = figure.colorbar(picture, ax=axes, location="bottom", aspect=40, pad=0.01)
    bar.set_ticks(ticks, labels=[f"{tick:.0%}" for tick in ticks], minor=False)
    bar.minorticks_off()
    bar.set_label("share of the true class's videos (blue on the diagonal)", color=INK)
    for part in (axes, bar.ax):
        part.tick_params(colors=INK, length=0)
        part.spines[:].set_color(GRID)
    bar.outline.set_visible(False)
    return _svg(figure)


def thumbnail(path: str) -> Row:
    """First, middle and last frame side by side as `{"uri": JPEG}`, or `{"reason": why there is none}`."""
    path = re.sub(r"#(t|frames)=[^#]*$", "", path)  # of a part of a video, the whole is shown
    try:
        if not Path(path).exists():
            return {"reason": "not found; paths are relative to the folder where the report is made"}
        with open_source(Path(path)) as video:
            height, width = video.size
            scale = min(1.0, THUMBNAIL_HEIGHT / height)
            size = max(1, round(height * scale)), max(1, round(width * scale))
            frames = video.frames([0, len(video) // 2, len(video) - 1], size=size)
    except Exception as error:  # an ornament: whatever a broken file does, it must not cost the report
        return {"reason": str(error).removeprefix(path).lstrip(": ") or type(error).__name__}
    gap = np.full((size[0], 4, 3), 128, np.uint8)
    strip = np.hstack([frames[0], gap, frames[1], gap, frames[2]])
    stream = io.BytesIO()
    Image.fromarray(strip).save(stream, "JPEG", quality=82)
    return {
        "uri": data_uri(stream.getvalue(), "image/jpeg"),
        "width": strip.shape[1],
        "height": strip.shape[0],
    }


# The page ----------------------------------------------------------------------------------------------


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write one self-contained HTML file about run folders and return its path.

    Args:
        runs: run folders as `train` leaves them; the numbers come from `test.npz`, else `val.npz`.
        out: the file; by default `report.html` in the first run folder.

    Raises:
        UserError: a run's file is missing or damaged, or the report cannot be written there.
    """
    if not runs:
        raise UserError("no run folder given; give one or several that `mmaction-lite train` wrote")
    out = out or runs[0] / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out}: a report is an HTML file; give a name that ends in .html")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    sections = [_section(read_run(run)) for run in runs]
    page = environment.get_template("page.html.jinja").render(
        sections=sections,
        most_worst=MOST_WORST_VIDEOS,
        metric_names=[n for n in TITLES if any(n in section["summary"]["metrics"] for section in sections)],
        titles={name: title[:1].upper() + title[1:] for name, title in TITLES.items()},
        long_titles=LONG_TITLES,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    write_atomically(out, lambda file: file.write(page.encode()))
    return out


def _percent(share: float | None, digits: int = 2) -> str:
    return "–" if share is None or not np.isfinite(share) else f"{100 * share:.{digits}f} %"


def _section(run: RunFolder) -> Row:
    """What the template shows of one run."""
    iterations, data = (_column(run.training, key)[1] for key in ("iteration_seconds", "data_seconds"))
    results = _results(run.scores) if run.scores else None
    return {
        "run": run,
        "summary": results["summary"] if results else _last_validation(run),
        "results": results,
        "curves": curves(run.training, run.validation),
        "epochs": max((row["epoch"] for row in run.training + run.validation), default=0),
        "steps": max((row["step"] for row in run.training + run.validation), default=0),
        "iteration_seconds": float(np.median(iterations)) if len(iterations) else None,
        "data_share": data.sum() / iterations.sum() if len(iterations) else None,
        "test_command": f"mmaction-lite test {shlex.quote(str(run.folder / 'best.pt'))} --data … "
        f"--dump {shlex.quote(str(run.folder / 'test.npz'))}",
    }


def _last_validation(run: RunFolder) -> Row:
    """The summary of a run without score file: the last validation that `metrics.jsonl` tells of."""
    row = run.validation[-1] if run.validation else {}
    source = f"last validation, epoch {row['epoch']:.4g}, in metrics.jsonl" if row else "nothing tested yet"
    keys = ("videos", "unreadable", "protocol")
    metrics = {name: row[name] for name in TITLES if name in row}
    return {"source": source, "metrics": metrics} | {key: row.get(key) for key in keys}


def _results(table: Scores) -> Row:
    """Return everything that follows from a score file. A row that is not finite is an unreadable video."""
    readable = np.isfinite(table.scores).all(axis=1)
    num_classes = len(table.class_names)
    found = table.task.metrics(table.scores, table.labels)
    shown = {name: found[name] for name in table.task.shown_metrics(num_classes)}
    mistakes = table.task.mistakes(table.scores, table.labels, table.class_names, MOST_WORST_VIDEOS)
    return {
        "summary": {
            "source": table.file.name,
            "videos": len(table.labels),
            "unreadable": int((~readable).sum()),
            "protocol": table.protocol,
            "metrics": shown,
        },
        "groups": [
            _group(group, table.class_names[group.first : group.first + len(group.videos)])
            for group in table.task.class_results(table.scores, table.labels)
        ],
        "worst": [
            {"path": table.paths[m.index], "picture": thumbnail(table.paths[m.index])} | vars(m)
            for m in mistakes
        ],
        "unreadable": [{"path": table.paths[n], "reason": ""} for n in np.flatnonzero(~readable)],
    }


def _group(group: ClassResults, names: list[str]) -> Row:
    """Return the tables of one group of classes: confusion, most confused pairs, results of each class."""
    matrix = group.confusion
    names = [name.removeprefix(f"{group.title}: ") for name in names]
    per_class = [
        {
            "number": k,
            "name": name,
            "videos": int(group.videos[k]),
            "recall": group.recall[k],
            "precision": group.precision[k],
            "f1": group.f1[k],
        }
        for k, name in enumerate(names)
    ]
    if group.average_precision is not None:
        for row, precision in zip(per_class, group.average_precision, strict=True):
            row["average_precision"] = precision
    confusion: Row | None = None
    if matrix is not None:
        most_common = (matrix - np.diag(np.diag(matrix))).argmax(axis=1)
        for k, (row, j) in enumerate(zip(per_class, most_common, strict=True)):
            row["mistake"] = names[j] if j != k and matrix[k, j] else ""
            row["mistakes"] = int(matrix[k, j]) if j != k else 0
        is_numbered = len(names) <= LARGEST_NUMBERED_MATRIX
        confusion = {
            "matrix": matrix.tolist() if is_numbered else None,
            "image": None if is_numbered else matrix_image(matrix),
            "csv": _csv(
                [["true \\ predicted", *names], *([n, *row] for n, row in zip(names, matrix, strict=True))]
            ),
            "pairs": [
                {"true": names[t], "predicted": names[p], "videos": n, "of": int(group.videos[t])}
                for t, p, n in most_confused(matrix, MOST_CONFUSED_PAIRS)
            ],
        }
    return {
        "title": group.title,
        "class_names": names,
        "confusion": confusion,
        "has_average_precision": group.average_precision is not None,
        "per_class": per_class,
        "csv": _csv([list(per_class[0]), *(row.values() for row in per_class)]),
    }


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return data_uri(stream.getvalue().encode(), "text/csv;charset=utf-8")
