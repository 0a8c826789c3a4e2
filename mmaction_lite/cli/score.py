"""The command `score`, which uses score files: metrics, fusion, comparison and calibration."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mmaction_lite.cli.options import Json
from mmaction_lite.errors import UserError


def score(
    files: Annotated[
        list[Path], typer.Argument(help="Score files of `test --dump`; several are fused, or compared.")
    ],
    weights: Annotated[
        str | None,
        typer.Option(help="Weight of each file in the fusion, as 1,1.5 [default: equal weights]."),
    ] = None,
    fit_on: Annotated[
        list[Path] | None,
        typer.Option(help="Fit the weights to these val scores; repeat the option for each file, in order."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare the second file with the first one.")
    ] = False,
    match: Annotated[
        Literal["path", "name"],
        typer.Option(help="How videos are compared: whole path, or without common folder and suffix."),
    ] = "path",
    temperature_from: Annotated[
        list[Path] | None,
        typer.Option(help="Fit a temperature to these val scores and apply it; repeat it for each file."),
    ] = None,
    store_in: Annotated[
        str | None,
        typer.Option(metavar="WEIGHTS", help="Write a copy of these weights that holds the temperature."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File of that copy [default: calibrated.safetensors in the run folder]."),
    ] = None,
    slices: Annotated[
        Path | None,
        typer.Option(help="CSV file with a column video and a column for each kind of slice."),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="PROPERTY", help="Metrics by length, fps or folder of the videos; repeatable."),
    ] = None,
    more: Annotated[
        bool, typer.Option("--more", help="Further metrics: F1, ROC AUC, kappa (needs scikit-learn).")
    ] = False,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability of a predicted class in --more, multi-label.")
    ] = 0.5,
    per_class: Annotated[
        Path | None, typer.Option(help="Write the results of every class to this .csv file.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="Write the table of slices, or of flipped videos, to this .csv file."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write the reliability picture to this .png or .svg file.")
    ] = None,
    dump: Annotated[
        Path | None, typer.Option(help="Write the fused or calibrated scores to this .npz or .parquet file.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap of --compare.")] = 0,
    as_json: Json = False,
) -> None:
    """Compute metrics of score files; fuse, compare and calibrate them, without the models."""
    from mmaction_lite.cli.score_results import (
        show_comparison,
        show_summary,
        slice_rows,
        summary,
        write_tables,
    )
    from mmaction_lite.inference.score_files import combine
    from mmaction_lite.inference.slices import Property, check_property

    store = _check_score_options(
        files,
        compare=compare,
        combines=weights is not None or bool(fit_on or temperature_from),
        has_temperature=bool(temperature_from),
        store_in=store_in,
        out=out,
    )
    properties: list[Property] = [check_property(name) for name in by or []]
    inputs = [*files, *(fit_on or []), *(temperature_from or [])]
    _check_score_outputs(inputs, per_class=per_class, csv=csv, picture=picture, dump=dump, is_flips=compare)
    combination = combine(
        files,
        weights=_numbers(weights),
        fit_on=fit_on or [],
        temperature_from=temperature_from or [],
        match=match,
    )
    if compare:
        return show_comparison(combination.tables, csv, seed, as_json)
    result = combination.result
    rows = slice_rows(result, slices, properties)
    found = summary(combination)
    if more:
        from mmaction_lite.tasks.further_metrics import further_metrics

        found["more"] = further_metrics(result, threshold)
    write_tables(combination, rows, per_class=per_class, csv=csv, picture=picture, dump=dump)
    if store is not None and store_in is not None:
        from mmaction_lite.inference.calibrate import store_temperature

        assert combination.temperature is not None
        assert combination.fitted is not None
        store_temperature(store_in, store, combination.temperature, combination.fitted)
        found["stored"] = str(store)
    show_summary(combination, found, rows, has_slices=bool(slices or by), as_json=as_json)


def _check_score_options(
    files: list[Path],
    *,
    compare: bool,
    combines: bool,
    has_temperature: bool,
    store_in: str | None,
    out: Path | None,
) -> Path | None:
    """Check options of `score` that depend on each other, and return the file of calibrated weights.

    Raises:
        UserError: they do not fit together.
    """
    from mmaction_lite.inference.calibrate import calibrated_file, check_store

    for file in files:
        if _is_number(str(file)) and not file.exists():
            raise UserError(f"{file}: no such file. Separate weights by commas: --weights 1,{file}")
    if compare and (len(files) != 2 or combines):
        raise UserError(
            f"--compare takes two score files without weights or temperature, and there are {len(files)} "
            "files; write fused or calibrated scores with --dump first, and compare that file"
        )
    if store_in is None:
        if out is not None:
            raise UserError("--out names the copy of the weights of --store-in; pass them, or use --dump")
        return None
    if not has_temperature or len(files) > 1:
        raise UserError(
            "--store-in stores the temperature of one model; expected one score file and --temperature-from "
            "with the val scores of the same model"
        )
    store = out or calibrated_file(store_in)
    check_store(store_in, store)
    return store


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(text: str | None) -> list[float] | None:
    """Parse the value of --weights.

    Raises:
        UserError: it is not a list of numbers.
    """
    if text is None:
        return None
    parts = text.replace(",", " ").split()
    if not parts or not all(map(_is_number, parts)):
        raise UserError(f"--weights is {text!r:.100}; expected a number for each file, such as 1,1.5")
    return [float(part) for part in parts]


def _check_score_outputs(
    files: list[Path],
    *,
    per_class: Path | None,
    csv: Path | None,
    picture: Path | None,
    dump: Path | None,
    is_flips: bool,
) -> None:
    """Check that the files of `score` can be written.

    Raises:
        UserError: one cannot, or an option does not apply to --compare.
    """
    from mmaction_lite.cli.score_results import FLIPS
    from mmaction_lite.files import check_replaceable, has_marker
    from mmaction_lite.report.reliability import check_picture_out
    from mmaction_lite.tasks.class_table import check_table_out
    from mmaction_lite.tasks.score_files import check_scores_out

    if is_flips and (per_class or picture or dump):
        raise UserError("--compare writes no file but the table of --csv; run `score` without --compare")
    if per_class is not None:
        check_table_out(per_class)
    if picture is not None:
        check_picture_out(picture)
    if dump is not None:
        check_scores_out(dump)
        if any(file.exists() and dump.exists() and file.samefile(dump) for file in files):
            raise UserError(f"{dump}: is an input of this command; choose another name")
    if csv is not None:
        if csv.suffix.lower() != ".csv":
            raise UserError(f"{csv}: a table is a CSV file; give a name that ends in .csv")
        headers = has_marker(b"column,slice,videos,unreadable", ",".join(FLIPS).encode())
        check_replaceable(csv, "a table of mmaction-lite score", headers, files)
