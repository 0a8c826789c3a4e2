"""Command `export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmaction_lite.cli.options import (
    HangSeconds,
    Json,
    Offline,
    OwnRecipe,
    Weights,
    Workers,
    own_recipe,
    print_json,
    show,
    start,
    track,
    warn,
)
from mmaction_lite.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from mmaction_lite.data.loading.workers import WorkerSettings


def export(
    weights: Weights,
    out: Annotated[Path, typer.Option(help="File to write, with the suffix .onnx or .pt2.")],
    to: Annotated[
        Literal["onnx", "pt2"] | None, typer.Option(help="Format [default: by the suffix of --out].")
    ] = None,
    recipe: OwnRecipe = None,
    half: Annotated[bool, typer.Option("--half", help="Store and compute the network in float16.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize to 8 bits by ONNX Runtime; needs --calibrate.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Dataset for --int8: clips of its train split determine the ranges of the activations."
        ),
    ] = None,
    workers: Workers = None,
    hang_seconds: HangSeconds = 120.0,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Export weights to an ONNX or torch.export file, and compare its results with those of the weights."""
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.export.write import check_export_out, export_model
    from mmaction_lite.weights.card import card_of, load

    suffix = check_export_out(out, to)
    if int8 and (suffix != ".onnx" or half):
        raise UserError("--int8 quantizes ONNX files in float32; use --to onnx without --half")
    if int8 != (calibrate is not None):
        raise UserError("--int8 and --calibrate DATA belong together; pass both or neither")
    start("cpu")
    model = load(weights, own_recipe(recipe))
    card = card_of(model)
    if calibrate is not None:
        settings = WorkerSettings(num_workers=workers, hang_seconds=hang_seconds)
        found = _export_int8(model, out, calibrate, settings)
    else:
        result = export_model(model, out, precision="float16" if half else "float32")
        found: dict[str, Any] = {
            "bytes": result.num_bytes,
            "difference": result.difference,
            "probability_difference": result.probability_difference,
        }
    shape = card.test.views.view_shape
    if as_json:
        return print_json({"file": str(out), "input": [None, *shape], "protocol": str(card.test), **found})
    if calibrate is None:
        show(
            f"largest difference from the weights: {found['difference']:.1e} of the largest logit, "
            f"{found['probability_difference']:.1e} in probabilities"
        )
    else:
        for name in ("float32", "int8"):
            show(f"{name}: {found[f'{name}_bytes'] / 1e6:.1f} MB, {found[name]}")
        show(found["protocol"])
    show(
        f"{card.builder}: uint8 RGB frames (batch, {', '.join(map(str, shape))}) to probabilities and logits "
        f"of {len(card.classes)} classes"
    )
    if calibrate is None:
        show(str(card.test))
    show(str(out))


def _export_int8(model: "nn.Module", out: Path, data: Path, settings: "WorkerSettings") -> dict[str, Any]:
    """Write an 8-bit ONNX file, and test it and the float32 graph on the test split."""
    from mmaction_lite.data.annotations.splits import read_split
    from mmaction_lite.export.int8 import quantize_onnx
    from mmaction_lite.export.write import export_bytes, write_export
    from mmaction_lite.inference.evaluate import calibration_clips, evaluate
    from mmaction_lite.weights.card import card_of
    from mmaction_lite.weights.exported import model_of

    card = card_of(model)
    samples = read_split(data, "test", card.classes)
    train = read_split(data, "train", card.classes)
    for note in (*samples.notes, *train.notes):
        warn(f"note: {note}")
    plain = export_bytes(model, ".onnx")
    files = {
        "float32": plain,
        "int8": quantize_onnx(plain, calibration_clips(train, card.test, settings)),
    }
    found: dict[str, Any] = {}
    for name, content in files.items():
        exported = model_of(content, ".onnx", str(out))
        result = evaluate(exported, samples, exported.card.test, workers=settings, track=track)
        found |= {name: result.describe(digits=2), f"{name}_bytes": len(content)}
        found |= {f"{name}_metrics": result.metrics, "protocol": result.protocol_line}
    write_export(out, files["int8"])
    return found
