"""Tables and printed results of the command `score`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmaction_lite.cli.options import print_json, show, track, warn
from mmaction_lite.files import write_atomically

if TYPE_CHECKING:
    from mmaction_lite.inference.score_files import Combination
    from mmaction_lite.inference.slices import Property
    from mmaction_lite.tasks.comparison import Comparison
    from mmaction_lite.tasks.score_files import Scores

MOST_FLIPPED = 10  # videos that `score --compare` prints; --csv and --json have all
FLIPS = ["change", "video", "before", "after"]  # columns of the table of flipped videos


def slice_rows(table: "Scores", slices: Path | None, by: "Sequence[Property]") -> list[dict[str, Any]]:
    """Return the rows of all slices."""
    from mmaction_lite.inference.slices import property_slices, read_slices, slice_table

    columns: dict[str, list[str]] = {kind: property_slices(table.paths, kind, track) for kind in by}
    if slices is not None:
        columns |= read_slices(slices, table.paths)
    return slice_table(table, columns)


def _class_rows(table: "Scores") -> list[dict[str, Any]]:
    """Return the results of every class."""
    from mmaction_lite.tasks.class_table import class_table

    groups = table.task.class_results(table.scores, table.labels)
    return [row for group in groups for row in class_table(group, table.class_names)]


def summary(combination: "Combination") -> dict[str, Any]:
    """Return the JSON object of `score`, without tables."""
    from mmaction_lite.tasks.bootstrap import bootstrap_intervals
    from mmaction_lite.tasks.calibration import reliability_of
    from mmaction_lite.tasks.metrics import intervals_of, readable_videos

    result = combination.result
    readable = readable_videos(result.scores)
    tables = [*dict.fromkeys([*combination.tables, combination.uncalibrated, result])]
    return {
        **result.metrics,
        "videos": len(result.paths),
        "unreadable": int((~readable).sum()),
        "intervals": intervals_of(result.metrics, len(result.paths))
        | bootstrap_intervals(result.task, result.scores, result.labels, result.metrics),
        "ece": reliability_of(result.task, result.scores, result.labels).error,
        "log_loss": result.task.log_loss(result.scores[readable], result.labels[readable]),
        "protocol": result.protocol,
        "weights": list(combination.weights),
        "temperature": combination.temperature.value if combination.temperature else None,
        "files": [{"file": str(table.file), **table.metrics, "protocol": table.protocol} for table in tables],
    }


def write_tables(
    combination: "Combination",
    rows: list[dict[str, Any]],
    *,
    per_class: Path | None,
    csv: Path | None,
    picture: Path | None,
    dump: Path | None,
) -> None:
    """Write the files of `score`."""
    from mmaction_lite.report.reliability import reliability_figure, write_picture
    from mmaction_lite.tasks.calibration import reliability_of
    from mmaction_lite.tasks.class_table import to_csv
    from mmaction_lite.tasks.score_files import write_scores

    for path, content in ((per_class, _class_rows(combination.result) if per_class else []), (csv, rows)):
        if path is not None:
            table = to_csv(content)
            write_atomically(path, lambda file, table=table: file.write(table))
    if picture is not None:
        tables = [combination.uncalibrated]
        titles = [combination.uncalibrated.file.name]
        if combination.temperature is not None:
            tables.append(combination.result)
            titles.append(str(combination.temperature))
        found = [reliability_of(table.task, table.scores, table.labels) for table in tables]
        write_picture(picture, reliability_figure(list(zip(titles, found, strict=True))))
    if dump is not None:
        write_scores(replace(combination.result, file=dump))


def show_summary(
    combination: "Combination",
    found: dict[str, Any],
    rows: list[dict[str, Any]],
    *,
    has_slices: bool,
    as_json: bool,
) -> None:
    """Print the results of `score`.

    Args:
        combination: the scores.
        found: see `summary`.
        rows: see `slice_rows`.
        has_slices: whether to print `rows`.
        as_json: whether to print one JSON object.
    """
    if as_json:
        return print_json(found | {"slices": rows, "per_class": _class_rows(combination.result)})
    from mmaction_lite.tasks.further_metrics import TITLES
    from mmaction_lite.tasks.metrics import describe

    result = combination.result
    shown = result.task.shown_metrics(len(result.class_names))
    if len(combination.tables) > 1:
        for table, weight in zip(combination.tables, combination.weights, strict=True):
            show(f"{table.file}, weight {weight:.4g}: {describe(table.metrics, shown, 2)}")
    show(describe(result.metrics, shown, 2, intervals=found["intervals"]))
    show(f"ECE {found['ece']:.2%} (15 bins), log loss {found['log_loss']:.4f}")
    if combination.temperature is not None and combination.fitted is not None:
        show(f"{combination.temperature}, fitted on {combination.fitted.file}")
        if set(combination.fitted.paths) & set(result.paths):
            warn(
                "note: the temperature was fitted on videos that are scored here, so the calibration is "
                "optimistic; score videos of another split"
            )
    for name, value in found.get("more", {}).items():
        show(f"{TITLES[name]} {value:.4f}")
    for row in rows if has_slices else []:
        metrics = {name: row[name] for name in shown}
        name = "all videos" if row["column"] == "all" else f"{row['column']} {row['slice']}"
        show(f"{name}: {row['videos']} videos, {describe(metrics, shown, 2, row['videos'])}")
    show(result.protocol)
    if "stored" in found:
        show(f"{found['stored']}: weights with {combination.temperature}")


def show_comparison(tables: "list[Scores]", csv: Path | None, seed: int, as_json: bool) -> None:
    """Print and write the comparison of two score files."""
    from mmaction_lite.tasks.class_table import to_csv
    from mmaction_lite.tasks.comparison import compare

    before, after = tables
    found = compare(before, after, seed)
    flips = _flips(tables, found)
    if csv is not None:
        table = to_csv(flips, FLIPS)
        write_atomically(csv, lambda file: file.write(table))
    if as_json:
        files = [{"file": str(t.file), **t.metrics, "protocol": t.protocol} for t in tables]
        values = {name: value for name, value in found._asdict().items() if name not in ("fixed", "broken")}
        return print_json({"files": files, "videos": len(before.paths), **values, "flips": flips})
    _print_comparison(tables, found, flips)


def _flips(tables: "list[Scores]", found: "Comparison") -> list[dict[str, Any]]:
    """Return the videos of which one model is correct and the other is not, with both predictions."""
    from mmaction_lite.tasks.comparison import predicted_names

    rows = []
    for change, chosen in (("fixed", found.fixed), ("broken", found.broken)):
        names = [predicted_names(table, chosen) for table in tables]
        videos = [tables[0].paths[row] for row in chosen.tolist()]
        rows += [dict(zip(FLIPS, (change, *row), strict=True)) for row in zip(videos, *names, strict=True)]
    return rows


def _print_comparison(tables: "list[Scores]", found: "Comparison", flips: list[dict[str, Any]]) -> None:
    """Print the comparison of two score files."""
    from mmaction_lite.tasks.metrics import describe

    before, after = tables
    shown = before.task.shown_metrics(len(before.class_names))
    for table in tables:
        show(f"{table.file}: {describe(table.metrics, shown, 2, len(table.paths))}")
        show(f"  {table.protocol}")
    show(
        f"difference of the accuracies {100 * found.difference:+.2f} points (95% interval "
        f"{100 * found.low:+.2f} to {100 * found.high:+.2f}, paired bootstrap); McNemar's exact test: "
        f"p = {found.p_value:.4g}"
    )
    show(
        f"{found.both_correct} videos are correct in both, {found.both_incorrect} in none, "
        f"{len(found.fixed)} in {after.file} only, {len(found.broken)} in {before.file} only"
    )
    for change, title in (("fixed", "wrong before, right after"), ("broken", "right before, wrong after")):
        videos = [row for row in flips if row["change"] == change]
        for row in videos[:MOST_FLIPPED]:
            show(f"{title}: {row['video']}: {row['before']} → {row['after']}")
        if len(videos) > MOST_FLIPPED:
            show(f"{title}: {len(videos) - MOST_FLIPPED} more; --csv FILE lists all")
