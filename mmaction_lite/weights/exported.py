"""Read exported models: ONNX files by ONNX Runtime, and files of `torch.export`.

An exported file holds the graph of a model, from uint8 frames to probabilities and logits, and the model card
as metadata. `mmaction_lite.export` writes such files.
"""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.errors import UserError, describe, reading
from mmaction_lite.files import open_regular
from mmaction_lite.weights.card import ModelCard
from mmaction_lite.weights.program_files import check_program

SUFFIXES = (".onnx", ".pt2")
INPUT = "frames"
OUTPUTS = ("probabilities", "logits")
CARD = "card"
"""Key of the metadata that holds the model card as JSON."""
METADATA_FILE = "mmaction_lite.json"
"""File inside of a `.pt2` file that holds the metadata as a JSON object."""
LARGEST_FILE = 16 << 30  # bytes; the largest network of the package takes 8 GB
PIXELS = Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
EXPORT_AGAIN = "expected a file written by mmaction-lite export. Export the weights again"

ExportedPrecision = Literal["float32", "float16", "int8"]
Run = Callable[[Tensor], tuple[Tensor, Tensor]]


class Graph(NamedTuple):
    """An opened file.

    Attributes:
        run: maps frames, uint8 (B, T, H, W, 3), to probabilities (B, K) and logits (B, K), or, with a window
            in the protocol, logits (B, num_windows, K). All tensors are on the CPU.
        metadata: texts that the file stores beside the graph.
    """

    run: Run
    metadata: dict[str, str]


class ExportedModel(nn.Module):
    """An exported graph with the interface of a model that `load` returns.

    It runs on the CPU and stays there: `to` has no effect. The graph normalizes pixels, so the protocols of
    the `card` pass pixels through unchanged.

    Args:
        name: path of the file, for messages.
        run: see `Graph`.
        card: card of the model that was exported.
        precision: of the graph: "float32", "float16" or "int8".
        digest: SHA-256 of the file; empty if unknown.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        card: ModelCard,
        precision: ExportedPrecision = "float32",
        digest: str = "",
    ) -> None:
        super().__init__()
        self.name = name
        self.precision: ExportedPrecision = precision
        self.digest = digest
        self.view_shape = card.test.views.view_shape
        self.window = card.test.window
        self.card = replace(
            card, val=replace(card.val, normalize=PIXELS), test=replace(card.test, normalize=PIXELS)
        )
        self._run = run
        self._device = nn.Parameter(torch.empty(0), requires_grad=False)  # other code reads the device here

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExportedModel":
        return self

    def forward(self, x: Tensor, window: int | None = None) -> Tensor:
        """Map clips (B, 3, T, H, W) of pixels, floats from 0 to 255, to logits (B, K).

        Args:
            x: clips of the size of the test protocol.
            window: that of the test protocol, if it has one; the logits are then (B, num_windows, K).

        Raises:
            UserError: another clip size or window than in the file.
        """
        frames = x.permute(0, 2, 3, 4, 1)
        if tuple(frames.shape[1:]) != self.view_shape or window != self.window:
            found, expected = (
                f"clips (T, H, W, C) of {tuple(shape)} with window {side}"
                for shape, side in ((frames.shape[1:], window), (self.view_shape, self.window))
            )
            raise UserError(
                f"{self.name}: got {found}; expected {expected}, as in its test protocol. Use the test "
                "protocol, or the weights that were exported"
            )
        return self._run(frames.to(torch.uint8).contiguous())[1]


def load_exported(path: Path) -> ExportedModel:
    """Load a file of `mmaction-lite export`, without executing code of the file.

    Raises:
        UserError: the file is missing, damaged, foreign or too large, or ONNX Runtime is not installed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {EXPORT_AGAIN}")
    with reading(path), open_regular(path, UserError(f"{path}: is not a file; {EXPORT_AGAIN}")) as file:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: has more than {LARGEST_FILE >> 30} GiB; {EXPORT_AGAIN}")
        data = file.readall()
    return model_of(data, path.suffix.lower(), str(path))


def model_of(data: bytes, suffix: str, name: str) -> ExportedModel:
    """Return the model in the bytes of an exported file; for the arguments and errors see `open_graph`."""
    graph = open_graph(data, suffix, name)
    with reading(name, advice=EXPORT_AGAIN):
        card = ModelCard.from_json(graph.metadata[CARD])
        stored = graph.metadata.get("precision")
        precision = next(known for known in get_args(ExportedPrecision) if known == stored)
    return ExportedModel(name, graph.run, card, precision, hashlib.sha256(data).hexdigest())


def check_has_layers(model: nn.Module, alternative: str = "") -> None:
    """Check that a model is a network, and not an exported file, whose layers cannot be reached.

    Args:
        model: any model.
        alternative: end of the message about what works without layers.

    Raises:
        UserError: the model is an exported file.
    """
    if isinstance(model, ExportedModel):
        raise UserError(
            f"{model.name}: an exported file has no layers; pass the weights that were exported{alternative}"
        )


def open_graph(data: bytes, suffix: str, name: str) -> Graph:
    """Open the bytes of an exported file.

    Args:
        data: content of the file.
        suffix: .onnx or .pt2.
        name: path of the file, for messages.

    Raises:
        UserError: the file is damaged or foreign, or ONNX Runtime is not installed.
    """
    with reading(name, advice=EXPORT_AGAIN):
        graph = _open_onnx(data, name) if suffix == ".onnx" else _open_program(data)
        if CARD not in graph.metadata:
            raise UserError(f"{name}: has no model card; {EXPORT_AGAIN}")
    return graph


def import_runtime(name: str, purpose: str) -> Any:
    """Import a module of the extra `export`.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"{purpose} needs {name.partition('.')[0]}; install it with pip install 'mmaction-lite[export]'"
        ) from None


def _open_onnx(data: bytes, name: str) -> Graph:
    runtime = import_runtime("onnxruntime", f"{name}: an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors come as exceptions
    try:
        # From memory: external files that a hostile graph names are then not read.
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(
            f"{name}: is damaged or not an ONNX file ({describe(error)}); {EXPORT_AGAIN}"
        ) from None
    found = ([node.name for node in session.get_inputs()], [node.name for node in session.get_outputs()])
    if found != ([INPUT], list(OUTPUTS)):
        raise UserError(f"{name}: inputs and outputs are {found!s:.200}; {EXPORT_AGAIN}")

    def run(frames: Tensor) -> tuple[Tensor, Tensor]:
        try:
            probabilities, logits = session.run(list(OUTPUTS), {INPUT: frames.numpy()})
        except Exception as error:
            raise UserError(f"{name}: ONNX Runtime failed ({describe(error)}); {EXPORT_AGAIN}") from None
        return torch.from_numpy(probabilities), torch.from_numpy(logits)

    return Graph(run, dict(session.get_modelmeta().custom_metadata_map))


def _open_program(data: bytes) -> Graph:
    metadata, file = check_program(data, METADATA_FILE)
    program = torch.export.load(file)
    return Graph(torch.no_grad()(program.module()), metadata)
