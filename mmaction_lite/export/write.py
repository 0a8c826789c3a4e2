"""Export a model to one file, and compare the file with the model."""

import copy
import io
import json
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mmaction_lite import __version__
from mmaction_lite.errors import UserError, describe
from mmaction_lite.export.graph import ScoredFrames, example_frames, exportable_graph
from mmaction_lite.export.onnx_file import onnx_bytes
from mmaction_lite.files import check_replaceable, write_atomically
from mmaction_lite.inference.scores import forward_options
from mmaction_lite.models.fast.inference import is_optimized
from mmaction_lite.tasks.named import task_to_json
from mmaction_lite.weights.card import ModelCard, card_of
from mmaction_lite.weights.exported import CARD, METADATA_FILE, SUFFIXES, ExportedModel, open_graph

Format = Literal["onnx", "pt2"]
Precision = Literal["float32", "float16"]
BATCH_SIZES = (1, 3)
# Largest difference of a logit, relative to the largest logit. Float32 networks differ by less than 1e-5.
BOUNDS: dict[Precision, float] = {"float32": 1e-4, "float16": 2e-2}


class Export(NamedTuple):
    """An exported file.

    Attributes:
        path: the file.
        num_bytes: its size.
        difference: largest absolute difference of a logit between the file and the model, relative to the
            largest logit, on clips of several kinds in batches of 1 and 3.
        probability_difference: largest absolute difference of a probability on these clips.
    """

    path: Path
    num_bytes: int
    difference: float
    probability_difference: float


def export_model(
    model: nn.Module, out: str | Path, *, to: Format | None = None, precision: Precision = "float32"
) -> Export:
    """Write a model to an ONNX file or a file of `torch.export`.

    The graph maps frames, uint8 (B, T, H, W, 3) of any batch size, to probabilities and logits. Decoding,
    resizing and cropping remain with the caller; the metadata of the file describe them.

    Args:
        model: a model that `load` returned.
        out: the file to write; an earlier export is replaced.
        to: "onnx" or "pt2"; None: by the suffix of `out`.
        precision: dtype of weights and activations.

    Raises:
        UserError: the model has no card or is optimized or exported already; the name of the file does not
            fit; the file cannot be written; the model cannot be exported; or the results of the file differ
            from those of the model by more than `BOUNDS`. No file is then written.
    """
    path = Path(out)
    suffix = check_export_out(path, to)
    data = export_bytes(model, suffix, precision)
    difference, probability_difference = compare(model, data, suffix)
    if not difference <= BOUNDS[precision]:
        raise UserError(
            f"{path}: logits differ from those of the model by {difference:.1e} of the largest logit; "
            f"expected at most {BOUNDS[precision]:.0e}. No file is written; use float32, or the other format"
        )
    write_export(path, data)
    return Export(
        path=path,
        num_bytes=len(data),
        difference=difference,
        probability_difference=probability_difference,
    )


def check_export_out(path: Path, to: Format | None = None) -> str:
    """Check that an export can be written to `path`, and return its suffix.

    Raises:
        UserError: the suffix does not fit the format, or see `check_replaceable`.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or (to is not None and suffix != f".{to}"):
        expected = f".{to}" if to else " or ".join(SUFFIXES)
        raise UserError(f"{path}: expected a file name ending in {expected}")
    check_replaceable(path, "a file of mmaction-lite export", _is_export)
    return suffix


def write_export(path: Path, data: bytes) -> None:
    """Write the bytes of an export, see `write_atomically`.

    Raises:
        UserError: see `check_export_out`.
    """
    check_export_out(path)
    write_atomically(path, lambda file: file.write(data))


def _is_export(path: Path) -> bool:
    return bool(open_graph(path.read_bytes(), path.suffix.lower(), str(path)))


def export_bytes(model: nn.Module, suffix: str, precision: Precision = "float32") -> bytes:
    """Return the bytes of the exported file.

    Raises:
        UserError: see `export_model`.
    """
    card = card_of(model)
    forward_options(model, card.test)
    if isinstance(model, ExportedModel) or is_optimized(model):
        raise UserError("export: the model is exported or optimized already; expected one that load returns")
    graph = exportable_graph(model, getattr(torch, precision))
    try:
        program = _program(graph, card)
        facts = metadata(card, precision)
        return onnx_bytes(program, facts) if suffix == ".onnx" else _program_bytes(program, facts)
    except UserError:
        raise
    except Exception as error:  # a model of the user can raise any exception
        raise UserError(
            f"{card.builder} cannot be exported to {suffix} ({describe(error)}); expected a model that "
            "torch.export can trace"
        ) from None


def _program(graph: ScoredFrames, card: ModelCard) -> torch.export.ExportedProgram:
    frames = example_frames(card.test.views.view_shape, 2)
    shapes = {"frames": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        program = torch.export.export(graph, (frames,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names paths of this machine
    return program


def _program_bytes(program: torch.export.ExportedProgram, facts: dict[str, str]) -> bytes:
    program.example_inputs = None  # stored as a pickle, see `weights.program_files`
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(facts)})
    return file.getvalue()


def metadata(card: ModelCard, precision: str) -> dict[str, str]:
    """Return what a file stores beside the graph, for programs that read it without this package."""
    views = card.test.views
    frames, height, width, _ = views.view_shape
    facts = {
        "version": __version__,
        "builder": card.builder,
        "precision": precision,
        "classes": json.dumps(card.classes),
        "task": task_to_json(card.task),
        "protocol": str(card.test),
        "input": f"uint8 (batch, {frames}, {height}, {width}, 3): cropped RGB frames of one clip",
        "short_side": json.dumps(views.short_side),
        "crop": f"{type(views.crop).__name__} {height}x{width}",
        "antialias": json.dumps(views.antialias),
        "interpolation": views.interpolation,
        "clips": repr(views.clips),
        "average": card.test.average,
        "normalization": repr(card.test.normalize),
    }
    return facts | {CARD: card.to_json()}


@torch.no_grad()
def compare(model: nn.Module, data: bytes, suffix: str) -> tuple[float, float]:
    """Return the differences between an exported file and the model; see `Export`."""
    card = card_of(model)
    run = open_graph(data, suffix, "export").run
    reference = ScoredFrames(copy.deepcopy(model).cpu().eval(), card.test, card.task)
    pairs = []
    for batch_size in BATCH_SIZES:
        frames = example_frames(card.test.views.view_shape, batch_size, batch_size)
        pairs.append((run(frames), reference(frames)))
    largest = max(float(logits.abs().max()) for _, (_, logits) in pairs)
    probabilities, logits = (
        max(float(_difference(found[number], true[number])) for found, true in pairs) for number in (0, 1)
    )
    return logits / max(largest, 1e-6), probabilities


def _difference(found: Tensor, true: Tensor) -> Tensor:
    if found.shape != true.shape:
        raise UserError(f"export: results of shape {tuple(found.shape)}; expected {tuple(true.shape)}")
    return (found - true).abs().max()
