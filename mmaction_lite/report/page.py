"""A report: one HTML page about one or several runs, with curves, metrics, classes, worst videos and recipe.

The page is self-contained: pictures are data URIs, and a browser loads nothing else.
"""

import re
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from mmaction_lite.errors import UserError, printable
from mmaction_lite.files import check_replaceable, has_marker, write_atomically
from mmaction_lite.report.figures import column, curves, overlaid_curves
from mmaction_lite.report.heads import head_table
from mmaction_lite.report.results import MOST_WORST_VIDEOS, results_of
from mmaction_lite.report.run_folder import RunFolder, read_run
from mmaction_lite.tasks.comparison import compare
from mmaction_lite.tasks.fusion import align
from mmaction_lite.tasks.metrics import LONG_TITLES, TITLES, intervals_of

Row = dict[str, Any]

# Control characters but line breaks, marks of the writing direction, and lone surrogates.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
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
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "interval": _interval}
    read = [read_run(run) for run in runs]
    sections = [_section(run) for run in read]
    metric_names = [n for n in TITLES if any(n in section["summary"]["metrics"] for section in sections)]
    page = environment.get_template("page.html.jinja").render(
        sections=sections,
        most_worst=MOST_WORST_VIDEOS,
        metric_names=metric_names,
        has_top5=any(name.endswith("top5") for name in metric_names),
        differences=_differences(read),
        comparisons=_comparisons(read),
        overlaid=overlaid_curves([(run.training, run.validation) for run in read]) if len(read) > 1 else [],
        titles={name: title[:1].upper() + title[1:] for name, title in TITLES.items()},
        long_titles=LONG_TITLES,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    check_replaceable(out, "a report of mmaction-lite", has_marker(GENERATOR))
    write_atomically(out, lambda file: file.write(page.encode()))
    return out


def _percent(share: float | None, digits: int = 2) -> str:
    return "–" if share is None or not np.isfinite(share) else f"{100 * share:.{digits}f} %"


def _interval(ends: tuple[float | None, float | None]) -> str:
    low, high = ends
    return "–" if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f} %"


def _visible(value: Any) -> Any:
    """Return text with escape sequences in place of characters that change how other text is displayed.

    These are control characters, marks of the writing direction and bytes that are not UTF-8.
    """
    if not isinstance(value, str) or not _INVISIBLE.search(value):
        return value
    text = _INVISIBLE.sub(lambda match: printable(match[0]), value)
    return Markup(text) if isinstance(value, Markup) else text


def _differences(runs: Sequence[RunFolder]) -> list[str]:
    """Return one line for each run whose numbers do not compare with those of the first run, and why."""
    tested = [(n, run.scores) for n, run in enumerate(runs, 1) if run.scores is not None]
    lines = []
    for number, other in tested[1:]:
        first, one = tested[0]
        names = [{Path(path).name for path in scores.paths} for scores in (one, other)]
        reasons = []
        if set(one.paths) != set(other.paths) and (
            names[0] != names[1] or len(one.paths) != len(other.paths)
        ):
            common = len(set(one.paths) & set(other.paths))
            reasons.append(f"other videos ({len(one.paths)} and {len(other.paths)}, {common} in common)")
        if set(one.class_names) != set(other.class_names):
            common = len(set(one.class_names) & set(other.class_names))
            reasons.append(
                f"other classes ({len(one.class_names)} and {len(other.class_names)}, {common} in common)"
            )
        if reasons:
            lines.append(
                f"The numbers of runs {first} and {number} do not compare: they were tested on "
                f"{' and '.join(reasons)}. Test both on the same data with --dump."
            )
    if 0 < len(tested) < len(runs):
        lines.append("Some runs have no score file: their numbers are those of the last validation.")
    return lines


def _comparisons(runs: Sequence[RunFolder]) -> list[str]:
    """Return one line for each run that was tested on the videos of the first run: what differs."""
    tested = [(n, run.scores) for n, run in enumerate(runs, 1) if run.scores is not None]
    lines = []
    for number, other in tested[1:]:
        first, one = tested[0]
        try:
            one, other = align([one, other])
        except UserError:  # other videos or classes, which `_differences` names
            continue
        found = compare(one, other)
        lines.append(
            f"Run {number} against run {first}: difference of the accuracies {100 * found.difference:+.2f} "
            f"points (95 % interval {100 * found.low:+.2f} to {100 * found.high:+.2f}, paired bootstrap); "
            f"{len(found.fixed)} videos flipped from wrong to right and {len(found.broken)} from right to "
            f"wrong (McNemar's exact test: p = {found.p_value:.4g}). `mmaction-lite score --compare` lists "
            "them."
        )
    return lines


def _section(run: RunFolder) -> Row:
    """Return the variables of the template for one run."""
    iterations, data = (column(run.training, key)[1] for key in ("iteration_seconds", "data_seconds"))
    results = results_of(run.scores) if run.scores else None
    has_top5 = _has_top5(run)
    return {
        "run": run,
        "summary": results["summary"] if results else _last_validation(run),
        "results": results,
        "heads": head_table(run.validation),
        "curves": curves(run.training, run.validation, has_top5=has_top5),
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
    metrics = {
        name: float(row[name])
        for name in TITLES
        if isinstance(row.get(name), float | int)
        and 0 <= row[name] <= 1  # not NaN, and nothing that was edited by hand
        and (name != "top5" or _has_top5(run))
    }
    videos = row.get("videos")
    videos = videos if isinstance(videos, int) and 0 < videos < 1 << 53 else None
    summary = {"source": source, "metrics": metrics, "intervals": intervals_of(metrics, videos)}
    return summary | {key: row.get(key) for key in keys}


def _has_top5(run: RunFolder) -> bool:
    """Whether the top-5 accuracy is of interest. With at most five classes, it is always 100 %."""
    if run.scores is not None:
        return len(run.scores.class_names) > 5
    return any(row.get("top5", 1) != 1 for row in run.validation)
