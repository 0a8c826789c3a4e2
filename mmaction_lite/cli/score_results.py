"""Files and printed results of the command `score`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmaction_lite.cli.options import print_json, show, warn
from mmaction_lite.errors import UserError
from mmaction_lite.files import check_replaceable, has_marker, write_atomically

if TYPE_CHECKING:
    from mmaction_lite.inference.score_files import Combination
    from mmaction_lite.tasks.comparison import Comparison
    from mmaction_lite.tasks.score_files import Scores

MOST_FLIPPED = 10  # videos that `score --compare` prints; --csv and --json have all
FLIPS = ["change", "video", "before", "after"]  # columns of the table of flipped videos


def _class_rows(table: "Scores") -> list[dict[str, Any]]:
    """Return the results of every class."""
    from mmaction_lite.tasks.class_table import class_table

    groups = table.task.class_results(table.scores, table.labels)
    return [row for group in groups for row in class_table(group, table.class_names)]


class ScoreFiles(NamedTuple):
    """Files that `score` writes; see its options. None: not written."""

    per_class: Path | None = None
    csv: Path | None = None
    picture: Path | None = None
    dump: Path | None = None

    def check(self, inputs: Sequence[Path], *, is_flips: bool) -> None:
        """Check that the files can be written.

        Args:
            inputs: score files that the command reads.
            is_flips: whether the command compares two score files.

        Raises:
            UserError: a file cannot be written, or its option does not apply to --compare.
        """
        from mmaction_lite.report.reliability import check_picture_out
        from mmaction_lite.tasks.class_table import check_table_out
        from mmaction_lite.tasks.score_files import check_scores_out

        if is_flips and (self.per_class or self.picture or self.dump):
            raise UserError("--compare writes no file but the table of --csv; run `score` without --compare")
        if self.per_class is not None:
            check_table_out(self.per_class)
        if self.picture is not None:
            check_picture_out(self.picture)
        if (dump := self.dump) is not None:
            check_scores_out(dump)
            if any(file.exists() and dump.exists() and file.samefile(dump) for file in inputs):
                raise UserError(f"{dump}: is an input of this command; choose another name")
        if (csv := self.csv) is not None:
            if csv.suffix.lower() != ".csv":
                raise UserError(f"{csv}: a table is a CSV file; give a name that ends in .csv")
            headers = has_marker(b"column,slice,videos,unreadable", ",".join(FLIPS).encode())
            check_replaceable(csv, "a table of mmaction-lite score", headers, inputs)

    def write(self, combination: "Combination", rows: list[dict[str, Any]]) -> None:
        """Write the files.

        Args:
            combination: the scores.
            rows: content of `csv`; see `inference.slices.rows_of_slices`.

        Raises:
            UserError: a file cannot be written.
        """
        from mmaction_lite.report.reliability import reliability_figure, write_picture
        from mmaction_lite.tasks.calibration import reliability_of
        from mmaction_lite.tasks.class_table import to_csv
        from mmaction_lite.tasks.score_files import write_scores

        class_rows = _class_rows(combination.result) if self.per_class else []
        for path, content in ((self.per_class, class_rows), (self.csv, rows)):
            if path is not None:
                table = to_csv(content)
                write_atomically(path, lambda file, table=table: file.write(table))
        if self.picture is not None:
            tables = [combination.uncalibrated]
            titles = [combination.uncalibrated.file.name]
            if combination.temperature is not None:
                tables.append(combination.result)
                titles.append(str(combination.temperature))
            found = [reliability_of(table.task, table.scores, table.labels) for table in tables]
            write_picture(self.picture, reliability_figure(list(zip(titles, found, strict=True))))
        if self.dump is not None:
            write_scores(replace(combination.result, file=self.dump))


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
        found: see `inference.score_files.summarize`.
        rows: see `inference.slices.rows_of_slices`.
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
