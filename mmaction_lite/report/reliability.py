"""The reliability picture: accuracy of predictions by their probability."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmaction_lite.errors import UserError
from mmaction_lite.files import check_replaceable, has_marker, write_atomically
from mmaction_lite.report.figures import GRID, INK, TRAINING, VALIDATION
from mmaction_lite.tasks.calibration import Reliability

MARKER = b"mmaction-lite reliability"  # in the metadata of the picture


def reliability_figure(parts: Sequence[tuple[str, Reliability]]) -> Figure:
    """Draw reliability diagrams side by side (Guo et al., arXiv:1706.04599, figure 1).

    Above: the accuracy of the predictions in each bin of their probability; calibrated predictions lie on the
    diagonal. Below: how many predictions each bin holds.

    Args:
        parts: title and reliability of each diagram.
    """
    figure = Figure(figsize=(4.2 * len(parts), 4.4), layout="constrained")
    grid = figure.subplots(2, len(parts), squeeze=False, height_ratios=(3, 1), sharex=True)
    for column, (title, found) in enumerate(parts):
        _draw(grid[0, column], grid[1, column], title, found)
    grid[0, 0].set_ylabel("accuracy", color=INK)
    grid[1, 0].set_ylabel("share", color=INK)
    return figure


def _draw(above: Axes, below: Axes, title: str, found: Reliability) -> None:
    edges = np.linspace(0, 1, len(found.counts) + 1)
    width = edges[1]
    centers = (edges[:-1] + edges[1:]) / 2
    used = found.counts > 0
    above.bar(centers[used], found.accuracies[used], width * 0.92, color=TRAINING, label="accuracy")
    above.plot(
        found.confidences[used], found.accuracies[used], "o", color=VALIDATION, ms=4, label="mean probability"
    )
    above.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="calibrated")
    above.set_title(f"{title}: ECE {found.error:.2%}", fontsize=10, color=INK)
    above.legend(loc="upper left", frameon=False, fontsize=8, labelcolor=INK)
    below.bar(centers, found.counts / max(1, found.counts.sum()), width * 0.92, color=INK)
    below.set_xlabel("probability of the prediction", color=INK)
    for axes in (above, below):
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.spines[:].set_visible(False)
        axes.grid(color=GRID, linewidth=0.7, alpha=0.4)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, length=0, labelsize=8)


def check_picture_out(path: Path) -> None:
    """Check that a picture can be written to `path`; an earlier picture is replaced.

    Raises:
        UserError: the name ends neither in .png nor in .svg, or see `check_replaceable`.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"{path}: a picture is .png or .svg; expected a file name with one of these endings")
    check_replaceable(path, "a reliability picture of mmaction-lite", has_marker(MARKER))


def write_picture(path: Path, figure: Figure) -> None:
    """Write a figure as PNG or SVG.

    Raises:
        UserError: see `check_picture_out`; or the file cannot be written.
    """
    check_picture_out(path)
    suffix = path.suffix.lower().removeprefix(".")
    metadata = {"Software" if suffix == "png" else "Title": MARKER.decode()}
    stream = io.BytesIO()
    figure.savefig(stream, format=suffix, dpi=110, metadata=metadata)
    write_atomically(path, lambda file: file.write(stream.getvalue()))
