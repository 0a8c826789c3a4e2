"""The command `score`, which uses score files: metrics, fusion, comparison and calibration."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mmaction_lite.cli.options import Json, PerClass, track
from mmaction_lite.errors import UserError

Files = Annotated[
    list[Path], typer.Argument(help="Score files of `test --dump`; several are fused, or compared.")
]
FusionWeights = Annotated[
    str | None,
    typer.Option(help="Weight of each file in the fusion, as 1,1.5 [default: equal weights]."),
]
FitOn = Annotated[
    list[Path] | None,
    typer.Option(help="Fit the weights to these val scores; repeat the option for each file, in order."),
]
Compare = Annotated[bool, typer.Option("--compare", help="Compare the second file with the first one.")]
MatchBy = Annotated[
    Literal["path", "name"],
    typer.Option(help="How videos are compared: whole path, or without common folder and suffix."),
]
TemperatureFrom = Annotated[
    list[Path] | None,
    typer.Option(help="Fit a temperature to these val scores and apply it; repeat it for each file."),
]
StoreIn = Annotated[
    str | None,
    typer.Option(metavar="WEIGHTS", help="Write a copy of these weights that holds the temperature."),
]
Out = Annotated[
    Path | None,
    typer.Option(help="File of that copy [default: calibrated.safetensors in the run folder]."),
]
SliceFile = Annotated[
    Path | None,
    typer.Option(help="CSV file with a column video and a column for each kind of slice."),
]
Properties = Annotated[
    list[str] | None,
    typer.Option(metavar="PROPERTY", help="Metrics by length, fps or folder of the videos; repeatable."),
]
More = Annotated[
    bool, typer.Option("--more", help="Further metrics: F1, ROC AUC, kappa (needs scikit-learn).")
]
Threshold = Annotated[
    float, typer.Option(min=0, max=1, help="Probability of a predicted class in --more, multi-label.")
]
TableFile = Annotated[
    Path | None,
    typer.Option(help="Write the table of slices, or of flipped videos, to this .csv file."),
]
Picture = Annotated[
    Path | None, typer.Option(help="Write the reliability picture to this .png or .svg file.")
]
Dump = Annotated[
    Path | None, typer.Option(help="Write the fused or calibrated scores to this .npz or .parquet file.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap of --compare.")]


def score(
    files: Files,
    weights: FusionWeights = None,
    fit_on: FitOn = None,
    compare: Compare = False,
    match: MatchBy = "path",
    temperature_from: TemperatureFrom = None,
    store_in: StoreIn = None,
    out: Out = None,
    slices: SliceFile = None,
    by: Properties = None,
    more: More = False,
    threshold: Threshold = 0.5,
    per_class: PerClass = None,
    csv: TableFile = None,
    picture: Picture = None,
    dump: Dump = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compute metrics of score files; fuse, compare and calibrate them, without the models."""
    from mmaction_lite.cli.score_results import ScoreFiles, show_comparison, show_summary
    from mmaction_lite.inference.score_files import combine, summarize
    from mmaction_lite.inference.slices import Property, check_property, rows_of_slices

    store = _check_score_options(
        files,
        compare=compare,
        combines=weights is not None or bool(fit_on or temperature_from),
        has_temperature=bool(temperature_from),
        store_in=store_in,
        out=out,
    )
    properties: list[Property] = [check_property(name) for name in by or []]
    outputs = ScoreFiles(per_class=per_class, csv=csv, picture=picture, dump=dump)
    outputs.check([*files, *(fit_on or []), *(temperature_from or [])], is_flips=compare)
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
    rows = rows_of_slices(result, slices, properties, track)
    found = summarize(combination)
    if more:
        from mmaction_lite.tasks.further_metrics import further_metrics

        found["more"] = further_metrics(result, threshold)
    outputs.write(combination, rows)
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
