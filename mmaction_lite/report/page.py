"""A report: one HTML page about one or several runs, with curves, metrics, classes, worst videos and recipe.

The page is self-contained: pictures are data URIs, and a browser loads nothing else.
"""

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from mmaction_lite.errors import UserError
from mmaction_lite.files import check_replaceable, has_marker, write_atomically
from mmaction_lite.report.figures import column, curves
from mmaction_lite.report.results import MOST_WORST_VIDEOS, results_of
from mmaction_lite.report.run_folder import RunFolder, read_run
from mmaction_lite.tasks.metrics import LONG_TITLES, TITLES

Row = dict[str, Any]
GENERATOR = b'<meta name="generator" content="mmaction-lite report">'


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write one self-contained HTML file about run folders and return its path.

    Args:
        runs: run folders; the metrics are those of `test.npz`, or of `val.npz` if there is no test.
        out: the HTML file; None: `report.html` in the first run folder.

    Raises:
        UserError: a file of a run is missing or damaged, `out` is a file that is not a report, or the report
            cannot be written.
    """
    if not runs:
        raise UserError("no run folder given; give one or several that `mmaction-lite train` wrote")
    out = out or runs[0] / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out}: a report is an HTML file; give a name that ends in .html")
    if runs[0].is_dir():
        check_replaceable(out, "a report of mmaction-lite", has_marker(GENERATOR))
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
    check_replaceable(out, "a report of mmaction-lite", has_marker(GENERATOR))
    write_atomically(out, lambda file: file.write(page.encode()))
    return out


def _percent(share: float | None, digits: int = 2) -> str:
    return "–" if share is None or not np.isfinite(share) else f"{100 * share:.{digits}f} %"


def _section(run: RunFolder) -> Row:
    """Return the variables of the template for one run."""
    iterations, data = (column(run.training, key)[1] for key in ("iteration_seconds", "data_seconds"))
    results = results_of(run.scores) if run.scores else None
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
    """Return the summary of a run without a score file: the last validation in `metrics.jsonl`."""
    row = run.validation[-1] if run.validation else {}
    source = f"last validation, epoch {row['epoch']:.4g}, in metrics.jsonl" if row else "nothing tested yet"
    keys = ("videos", "unreadable", "protocol")
    metrics = {name: row[name] for name in TITLES if name in row}
    return {"source": source, "metrics": metrics} | {key: row.get(key) for key in keys}
