"""Figures of a report as SVG: training curves and the confusion matrix of many classes."""

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Row = dict[str, Any]

LEGEND_COLUMNS = 3
LARGEST_VALUE = 1e100  # of a curve; sums of larger values overflow
MOST_POINTS = 1000  # of a training curve
TRAINING, VALIDATION, SECOND, THIRD = "#3f7df0", "#e8772e", "#2fa37c", "#a05bc4"
RUNS = (
    "#3f7df0",
    "#e8772e",
    "#2fa37c",
    "#a05bc4",
    "#d64550",
    "#8a6d3b",
    "#17a2b8",
    "#7f7f7f",
)  # of several runs
INK, GRID = "#7c7f85", "#7c7f86"  # placeholders, replaced in the SVG by colors of light and dark mode
SVG_COLORS = (
    ":root{--ink:#4b5563;--grid:#d9dde3}"
    "@media(prefers-color-scheme:dark){:root{--ink:#aeb6c2;--grid:#343b46}}"
)


def data_uri(content: bytes, media_type: str) -> str:
    """Return `content` as a `data:` URI, which is part of the page."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def smooth(values: np.ndarray) -> np.ndarray:
    """Return the centered moving average over a fortieth of a curve (N,), smaller at both ends."""
    window = np.ones(max(1, len(values) // 40) * 2 - 1)
    same = (len(window) - 1) // 2, (len(window) - 1) // 2 + len(values)
    return (np.convolve(values, window) / np.convolve(np.ones(len(values)), window))[slice(*same)]


def column(rows: list[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs and values, float (N,) each, of the rows with a finite value of `key`, below 1e100."""
    pairs = [(row["epoch"], row[key]) for row in rows if key in row]
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    table = table[(np.abs(table) < LARGEST_VALUE).all(axis=1)]  # false for NaN
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


def svg_uri(figure: Figure) -> str:
    """Return a figure as a data URI, with text in the system font and colors of light and dark mode."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue().replace(INK, f"var(--ink,{INK})").replace(GRID, f"var(--grid,{GRID})")
    svg = svg.replace('<style type="text/css">', f'<style type="text/css">{SVG_COLORS}', 1)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    return data_uri(svg.encode(), "image/svg+xml")


def _curve(title: str, scale: float, *series: tuple[list[Row], str, str, str]) -> Row | None:
    """Draw series (rows, key, label, color) as a figure with title, uri and alt; None without any number."""
    figure, axes = _axes()
    summaries, top = [], 0.0
    for rows, key, label, color in series:
        epochs, values = column(rows, key)
        if not len(values):
            continue
        values = values * scale
        if "split" in rows[0]:  # validations: few and exact
            axes.plot(epochs, values, color=color, label=label, linewidth=1.6, marker="o", markersize=3.5)
        else:
            some = slice(None, None, -(-len(values) // MOST_POINTS))
            axes.plot(epochs[some], values[some], color=color, linewidth=0.8, alpha=0.3)
            values = smooth(values)
            axes.plot(epochs[some], values[some], color=color, label=label, linewidth=1.8)
        top = max(top, float(np.percentile(values, 98)))
        summaries.append(f"{label} from {values[0]:.4g} to {values[-1]:.4g}")
    if not summaries:
        return None
    if top > 0:  # a slow first iteration must not compress the rest of the curve
        axes.set_ylim(0, 1.12 * top)
    if len(summaries) > 1:
        lines = -(-len(summaries) // LEGEND_COLUMNS)
        figure.set_size_inches(4.2, 2.3 + 0.2 * lines)
        figure.subplots_adjust(top=1 - (0.1 + 0.2 * lines) / (2.3 + 0.2 * lines))
        axes.legend(
            loc="lower left",  # above the frame: inside it would cover some curve
            bbox_to_anchor=(-0.02, 0.98),
            ncols=LEGEND_COLUMNS,
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            columnspacing=1.0,
            handlelength=1.2,
            handletextpad=0.5,
        )
    return {"title": title, "uri": svg_uri(figure), "alt": f"{title} over epochs: {'; '.join(summaries)}."}


def curves(training: list[Row], validation: list[Row], *, has_top5: bool = True) -> list[Row]:
    """Draw the rows of `metrics.jsonl` as figures with title, uri and alt.

    Args:
        training: rows about training steps.
        validation: rows about validations.
        has_top5: whether to draw the top-5 accuracy.
    """
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
        (validation if has_top5 else [], "top5", "validation top-5", SECOND),
        (validation, "mean_average_precision", "validation mAP", THIRD),
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


def overlaid_curves(runs: Sequence[tuple[list[Row], list[Row]]]) -> list[Row]:
    """Draw the training losses and the main metrics of several runs in common figures.

    Args:
        runs: rows about training steps and about validations of each run.

    Returns:
        figures with title, uri and alt; a metric that fewer than two runs have is left out.
    """
    found = []
    for title, scale, place, key in (
        ("Training loss", 1, 0, "loss"),
        ("Validation top-1 (%)", 100, 1, "top1"),
        ("Validation mAP (%)", 100, 1, "mean_average_precision"),
        ("Validation action top-1 (%)", 100, 1, "action_top1"),
    ):
        series = [
            (run[place], key, f"run {number}", RUNS[(number - 1) % len(RUNS)])
            for number, run in enumerate(runs, 1)
            if len(column(run[place], key)[0])
        ]
        if len(series) > 1 and (curve := _curve(title, scale, *series)):
            found.append(curve)
    return found


def matrix_image(matrix: np.ndarray) -> str:
    """Draw a confusion matrix (K, K) of many classes as an SVG data URI; rows are normalized to sum to 1."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6, 6.35), layout="constrained")
    axes = figure.subplots()
    # Each kind of mistake is rare among many classes; a linear scale would show the diagonal alone.
    norm = AsinhNorm(linear_width=0.01, vmin=0, vmax=1)
    on_diagonal = np.eye(len(share), dtype=bool)
    for color, hidden in ((TRAINING, ~on_diagonal), (VALIDATION, on_diagonal)):
        faint_to_full = LinearSegmentedColormap.from_list("share", [(*to_rgb(color), 0.15), color])
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
    return svg_uri(figure)
