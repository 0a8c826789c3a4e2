"""Picture of the segments of a video over time."""

import io
import warnings
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mmaction_lite.errors import printable
from mmaction_lite.report.figures import RUNS

MOST_ROWS = 20
LONGEST_LABEL = 40


def timeline_png(
    segments: Sequence[tuple[str, float, float, float]], duration: float, title: str, note: str
) -> bytes:
    """Draw segments as bars, one row per class, in a PNG of about 1100 pixels width.

    Args:
        segments: label, start and end in seconds, and score of each segment. Of more than 20 classes, those
            with the longest total time are drawn.
        duration: of the video in seconds.
        title: above the picture.
        note: below the picture, such as the protocol line.
    """
    total: dict[str, float] = {}
    for label, start, end, _ in segments:
        total[label] = total.get(label, 0.0) + end - start
    chosen = sorted(total, key=lambda label: -total[label])[:MOST_ROWS]
    first = {label: min(s[1] for s in segments if s[0] == label) for label in chosen}
    rows = {label: row for row, label in enumerate(sorted(chosen, key=lambda label: first[label]))}
    figure = Figure(figsize=(11, 1.4 + 0.32 * max(1, len(rows))), dpi=100)
    axes = figure.subplots()
    for label, row in rows.items():
        own = [s for s in segments if s[0] == label]
        axes.broken_barh(
            [(start, max(end - start, duration / 2000)) for _, start, end, _ in own],
            (row - 0.36, 0.72),
            facecolors=[(RUNS[row % len(RUNS)], 0.35 + 0.65 * min(1.0, score)) for *_, score in own],
        )
    axes.set_xlim(0, max(duration, 1e-3))
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    names = [printable(label, LONGEST_LABEL).replace("$", r"\$") for label in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 1.5, 2, 3, 5, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _clock(seconds)))
    axes.grid(axis="x", color="#d9dde3", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=9)
    left_out = len(total) - len(rows)
    if left_out:
        note += f"; {left_out} of {len(total)} classes with the least time are not drawn"
    if not segments:
        axes.text(0.5, 0.5, "no segments", transform=axes.transAxes, ha="center", va="center")
    axes.set_title(printable(title, 120).replace("$", r"\$"), fontsize=10, loc="left")
    figure.text(
        0.01, 0.02, printable(note, 400).replace("$", r"\$"), fontsize=6.5, color="#4b5563", wrap=True
    )
    figure.subplots_adjust(bottom=0.75 / figure.get_figheight(), top=1 - 0.35 / figure.get_figheight())
    longest = max(map(len, names), default=0)
    figure.subplots_adjust(left=min(0.35, 0.02 + 0.0066 * longest), right=0.985)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # drawn as boxes
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _clock(seconds: float) -> str:
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(int(minutes), 60)
    shown = f"{second:04.1f}".removesuffix(".0")
    return f"{hours}:{minute:02}:{shown}" if hours else f"{minute}:{shown}"
