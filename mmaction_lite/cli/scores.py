"""The command `test`, which computes the scores of a split."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmaction_lite.cli.options import (
    Amp,
    Compile,
    Data,
    Device,
    HangSeconds,
    Json,
    Offline,
    OwnRecipe,
    PerClass,
    Weights,
    Workers,
    own_recipe,
    print_json,
    show,
    start,
    track,
    warn,
)
from mmaction_lite.errors import MissingSplitError, UserError
from mmaction_lite.files import write_atomically

if TYPE_CHECKING:
    from torch import nn

    from mmaction_lite.data.annotations.samples import Samples
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.data.views.protocol import Protocol
    from mmaction_lite.inference.scores import Evaluation

MOST_CONFUSED_PAIRS = 10_000  # in the JSON object of `test`


def test(
    weights: Weights,
    data: Data,
    recipe: OwnRecipe = None,
    protocol: Annotated[
        Literal["val", "test"],
        typer.Option(help="Protocol and split: those of validation or those of the test."),
    ] = "test",
    dump: Annotated[
        Path | None, typer.Option(help="Write the scores of all videos to this .npz or .parquet file.")
    ] = None,
    dump_views: Annotated[
        bool, typer.Option("--dump-views", help="Store the logits of every view as well; needs --dump.")
    ] = False,
    per_class: PerClass = None,
    amp: Amp = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Quantize the model to 8 bits by ONNX Runtime, on a CPU; faster. Needs the extra export.",
        ),
    ] = False,
    compile: Compile = None,
    device: Device = "auto",
    workers: Workers = None,
    hang_seconds: HangSeconds = 120.0,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Test weights on the test split, or on the val split if the data set has no test split."""
    from mmaction_lite.data.annotations.splits import read_split
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.distributed import init_distributed
    from mmaction_lite.inference.evaluate import evaluate
    from mmaction_lite.tasks.class_table import check_table_out
    from mmaction_lite.tasks.score_files import check_scores_out
    from mmaction_lite.weights.card import card_of, load
    from mmaction_lite.weights.fingerprint import fingerprint_of_weights

    if dump_views and dump is None:
        raise UserError("--dump-views adds logits to a score file; pass the file as --dump")
    if dump is not None:
        check_scores_out(dump)
    if per_class is not None:
        check_table_out(per_class)
    if int8:
        device = _device_of_int8(device, amp, compile)
    settings = WorkerSettings(num_workers=workers, hang_seconds=hang_seconds)
    model = load(weights, own_recipe(recipe))
    card = card_of(model)
    checksum = fingerprint_of_weights(model) if dump is not None else None
    samples = read_split(data, protocol, card.classes)
    for note in samples.notes:
        warn(f"note: {note}")
    used = card.val if protocol == "val" else card.test
    start(device)
    with init_distributed(device) as context:
        settings = replace(settings, num_workers=settings.count(context.local_world_size))
        if int8:
            model, used = _quantize(model, used, data, samples, settings)
        result = evaluate(
            model.to(context.device),
            samples,
            used,
            task=card.task,
            precision=amp or "float32",
            compile=compile,
            workers=settings,
            keep_views=dump_views,
            track=track if context.is_main_process else None,
            context=context,
        )
    if context.is_main_process:
        _write_test(replace(result, weights=checksum), dump, per_class)
        _print_test(result, weights, as_json)


def _device_of_int8(device: str, amp: str | None, compile: str | None) -> str:
    """Return the device of `test --int8`: the CPU.

    Raises:
        UserError: `--int8` does not work with the other options, or a package is missing.
    """
    from mmaction_lite.export.int8 import check_packages

    if amp or compile:
        raise UserError(f"int8 does not work with {f'amp {amp}' if amp else 'compile'}; use one of them")
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: --int8 computes on the CPU; omit --device, or pass cpu")
    check_packages()
    return "cpu"


def _quantize(
    model: "nn.Module", protocol: "Protocol", data: Path, samples: "Samples", settings: "WorkerSettings"
) -> "tuple[nn.Module, Protocol]":
    """Return an 8-bit form of a model and its protocol.

    The training split calibrates the ranges of activations; if there is none, `samples` do.
    """
    from mmaction_lite.data.annotations.splits import read_split
    from mmaction_lite.export.int8 import quantize_model
    from mmaction_lite.weights.card import card_of

    try:
        calibration = read_split(data, "train", card_of(model).classes)
    except MissingSplitError:
        calibration = samples
    small = quantize_model(model, protocol, calibration, settings)
    return small, small.card.test


def _write_test(result: "Evaluation", dump: Path | None, per_class: Path | None) -> None:
    """Write the files of `test`."""
    from mmaction_lite.tasks.class_table import check_table_out, to_csv

    if dump is not None:
        result.save(dump)
    if per_class is not None:
        table = to_csv(result.per_class())
        check_table_out(per_class)
        write_atomically(per_class, lambda file: file.write(table))


def _print_test(result: "Evaluation", weights: str | Path, as_json: bool) -> None:
    """Print the results of `test`."""
    from mmaction_lite.report.run_folder import validation_source

    source = validation_source(Path(weights))
    is_chosen_here = source is not None and Path(source).absolute() == Path(result.source).absolute()
    if is_chosen_here:
        warn(
            f"note: the videos of {result.source} chose these weights in training, so the accuracy is "
            "optimistic; measure it on videos that the training did not use"
        )
    if as_json:
        return print_json(
            {
                **result.metrics,
                "videos": len(result.labels),
                "unreadable": len(result.faults),
                "intervals": result.intervals(),
                "per_class": result.per_class(),
                "confusion": result.confused_pairs(MOST_CONFUSED_PAIRS),
                "chose_weights": is_chosen_here,
                "faults": [fault._asdict() for fault in result.faults],
                "protocol": result.protocol_line,
                "weights": str(weights),
            }
        )
    for fault in result.faults:
        warn(f"unreadable, scored as incorrect: {fault.reason}")
    show(result.describe(digits=2, has_intervals=True))
    show(result.protocol_line)
