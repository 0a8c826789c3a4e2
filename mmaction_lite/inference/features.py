"""Extract features: the outputs of a layer for whole videos, for each view, or for sliding windows."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.annotations.samples import absolute
from mmaction_lite.data.loading.loader import Fault
from mmaction_lite.data.loading.workers import IN_PROCESS, WorkerSettings
from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.device import pick_device, reusing_memory
from mmaction_lite.errors import UserError, VideoError, printable
from mmaction_lite.inference.feature_files import Features
from mmaction_lite.inference.feature_reading import Part, Read, Reading, Spans, plan_parts, read_parts
from mmaction_lite.inference.inputs import OneVideo, as_path, expand, is_one, is_path, name_of, open_input
from mmaction_lite.inference.layer_outputs import (
    HEAD_INPUT,
    LayerOutput,
    check_layer,
    list_layers,
    pooled_outputs,
)
from mmaction_lite.inference.scores import chunk_views, device_of
from mmaction_lite.inference.windows import Seconds, Windows
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.tokens import Pool
from mmaction_lite.settings import check_fields
from mmaction_lite.weights.card import card_of, load
from mmaction_lite.weights.fingerprint import fingerprint_of_weights

FORMAT = 1  # version of the stored metadata
MOST_WAITING = 8  # videos whose clips are in memory


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """Which features to extract.

    Args:
        layer: name of a module; None: the input of the classifier.
        pool: axes over which the mean is taken: "time", "space", "all" (both) or "none".
        stride: distance of sliding windows in seconds; None: the views of the protocol.
        window: length of a window in seconds; None: one clip of the protocol.
        per_view: one row for each view instead of the mean over the views.
        half: store float16.

    Raises:
        UserError: a value out of range, a window without a stride, or a stride with `per_view`.
    """

    layer: str | None = None
    pool: Pool = "all"
    stride: Seconds | None = None
    window: Seconds | None = None
    per_view: bool = False
    half: bool = False

    def __post_init__(self):
        check_fields(self)
        if self.window is not None and self.stride is None:
            raise UserError("a window length is given without a stride; add the stride in seconds (--stride)")
        if self.stride is not None and self.per_view:
            raise UserError("per_view goes with whole videos; expected either a stride or per_view")

    @classmethod
    def of_info(cls, info: dict[str, Any]) -> "FeatureSettings":
        """Return the settings of stored features, from their metadata."""
        return cls(
            layer=None if info["layer"] == HEAD_INPUT else info["layer"],
            pool=info["pool"],
            stride=info["stride_seconds"],
            window=info["window_seconds"],
            per_view=info["rows"] == "view",
            half=info["dtype"] == "float16",
        )

    @property
    def rows(self) -> Literal["video", "view", "window"]:
        """Part of a video that one row describes."""
        return "window" if self.stride is not None else "view" if self.per_view else "video"

    @property
    def windows(self) -> Windows | None:
        """Sliding windows; None without a stride."""
        return None if self.stride is None else Windows(seconds=self.window, stride=self.stride)

    def rule(self, protocol: Protocol) -> str:
        """Return how views become rows, for the protocol line."""
        if self.windows is None:
            return "features of each view" if self.per_view else "features averaged over views"
        if self.window is None and isinstance(protocol.views.clips, DenseClips):
            length = "one clip"  # in seconds, it depends on the frame rate of the video
        else:
            length = f"{self.windows.plan(protocol, math.nan).seconds:g} s"
        return f"windows of {length} every {self.stride:g} s, features averaged over crops"

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored values."""
        return np.dtype(np.float16 if self.half else np.float32)


class Extractor:
    """A model with the settings of its features.

    Args:
        model: a model that `load` returned, on its device. It is put into evaluation mode.
        settings: which features to extract.

    Attributes:
        protocol: views of a video, or of a window.
        info: what the rows depend on, for the metadata of files; "fingerprint" is a checksum of the rest.

    Raises:
        UserError: the model has no card, or no such layer, or a clip is too short for it.
    """

    def __init__(self, model: nn.Module, settings: FeatureSettings):
        card = card_of(model)
        check_layer(model, settings.layer)
        self.settings = settings
        # Windows of the last feature map divide what the classifier sees, not the features.
        self.protocol = replace(card.test, window=None)
        if settings.windows is not None:
            self.protocol = settings.windows.plan(self.protocol, fps=25.0).protocol
        is_optimizable = settings.layer is None and isinstance(model, Recognizer)
        self.model = optimize_for_inference(model) if is_optimizable else model.eval()
        shape = self.row_shape()
        self.info = _describe(model, settings, self.protocol, shape)

    @torch.no_grad()
    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of one row, from a forward pass of one empty view."""
        x = empty_view(self.protocol).to(device_of(self.model))
        return tuple(pooled_outputs(self.model, x, self.settings.layer, self.settings.pool).shape[1:])

    @property
    def row_bytes(self) -> int:
        """Size in bytes of the values of one row."""
        return math.prod(self.info["shape"]) * self.settings.dtype.itemsize

    def reading(self, names: Sequence[str], open_video: Callable[[int], Source]) -> Reading:
        """Return what is read of videos with these names, which `open_video` opens by number."""
        return Reading(
            names=names,
            open_video=open_video,
            protocol=self.protocol,
            windows=self.settings.windows,
            per_view=self.settings.per_view,
        )

    @torch.no_grad()
    def extract(
        self, reading: Reading, parts: list[Part], workers: WorkerSettings = IN_PROCESS
    ) -> Iterator[Features | Fault]:
        """Yield the features of each video, or why it cannot be read, in order.

        Args:
            reading: the videos.
            parts: see `plan_parts`.
            workers: decoding worker processes.
        """
        rows: list[np.ndarray] = []
        spans: list[Spans] = []
        problem, expected = "", 0
        for read, values in self._computed(read_parts(reading, parts, workers)):
            name = reading.names[read.part.video]
            problem, expected = problem or read.problem, expected + read.part.num_rows
            if read.spans is not None:
                rows.append(values)
                spans.append(read.spans)
            if read.part.is_last:
                missing = expected - sum(map(len, rows))
                note = f"{printable(name)}: {missing} of {expected} rows are left out; {problem}" * bool(
                    missing
                )
                yield self._features(name, rows, spans, note) if rows else Fault(name, problem)
                rows, spans, problem, expected = [], [], "", 0

    def _features(self, name: str, rows: list[np.ndarray], spans: list[Spans], note: str) -> Features | Fault:
        values = np.concatenate(rows)
        if not np.isfinite(values).all():
            cure = "omit --half" if self.settings.half else "check the weights"
            return Fault(name, f"{printable(name)}: the features are not finite in {values.dtype}; {cure}")
        return Features(
            values=values,
            **{field: np.concatenate([getattr(part, field) for part in spans]) for field in Spans._fields},
            video=np.zeros(len(values), np.int64),
            videos=(name if name.startswith("<") else absolute(name),),
            info=self.info,
            note=note,
        )

    def _computed(self, reads: Iterable[Read]) -> Iterator[tuple[Read, np.ndarray]]:
        """Yield what was read with its values, in order; small videos share a forward pass."""
        most = chunk_views(self.protocol)
        waiting: list[Read] = []
        for read in reads:
            waiting.append(read)
            count = sum(len(one.clips) for one in waiting if one.clips is not None)
            if count * self.protocol.num_views >= most or len(waiting) >= MOST_WAITING:
                yield from self._compute(waiting)
                waiting = []
        yield from self._compute(waiting)

    def _compute(self, reads: list[Read]) -> Iterator[tuple[Read, np.ndarray]]:
        clips = [part for read in reads if read.clips is not None for part in read.clips]
        rows = self._rows(clips) if clips else np.empty(0)
        done = 0
        for read in reads:
            count = 0 if read.spans is None else len(read.spans.first_frame)
            yield read, rows[done : done + count]
            done += count

    def _rows(self, clips: list[Tensor]) -> np.ndarray:
        """Return the rows of parts of videos, each with clips uint8 (num_clips, T, H, W, C)."""
        settings, device = self.settings, device_of(self.model)
        on_device = (part.to(device, non_blocking=True) for part in clips)
        with reusing_memory(device):
            values = torch.cat(
                [
                    pooled_outputs(self.model, x, settings.layer, settings.pool)
                    for x in self.protocol.prepare_in_chunks(on_device, chunk_views(self.protocol))
                ]
            )
        if not settings.per_view:
            views = values.unflatten(0, (len(clips), self.protocol.num_views))
            values = self.protocol.average_logits(views, lambda x: x)
        with np.errstate(over="ignore"):  # reported as not finite
            return values.cpu().numpy().astype(settings.dtype)


@torch.no_grad()
def layers_of(model: nn.Module) -> list[LayerOutput]:
    """Return the layers of a model that `load` returned, with the shapes of their outputs for one view."""
    return list_layers(model, empty_view(card_of(model).test).to(device_of(model)))


def empty_view(protocol: Protocol) -> Tensor:
    """Return one black view, normalized, float32 (1, C, T, H, W)."""
    return protocol.normalize(torch.zeros((1, *protocol.views.view_shape), dtype=torch.uint8))


def _describe(
    model: nn.Module, settings: FeatureSettings, protocol: Protocol, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return what rows depend on, for JSON."""
    info: dict[str, Any] = {
        "format": FORMAT,
        "recipe": card_of(model).recipe,
        "weights": fingerprint_of_weights(model),
        "layer": settings.layer or HEAD_INPUT,
        "pool": settings.pool,
        "rows": settings.rows,
        "stride_seconds": settings.stride,
        "window_seconds": settings.window,
        "dtype": str(settings.dtype),
        "shape": list(shape),
        "protocol": f"{protocol.views}, {settings.rule(protocol)}",
    }
    text = json.dumps([info, repr(protocol)], sort_keys=True)
    return info | {"fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16]}


@overload
def extract_features(  # pyright: ignore[reportOverlappingOverload]  a string is an iterable of strings
    model: str | Path | nn.Module, videos: OneVideo, layer: str | None = None, **settings: Any
) -> Features: ...
@overload
def extract_features(
    model: str | Path | nn.Module, videos: Iterable[OneVideo], layer: str | None = None, **settings: Any
) -> list[Features]: ...


def extract_features(
    model: str | Path | nn.Module,
    videos: OneVideo | Iterable[OneVideo],
    layer: str | None = None,
    *,
    device: str = "auto",
    workers: WorkerSettings = IN_PROCESS,
    **settings: Any,
) -> Features | list[Features]:
    """Extract features of one video or of several, under the test protocol of the weights.

    Args:
        model: a weights file or run folder, as for `load`, or a model that `load` returned. A model is moved
            to the device and put into evaluation mode.
        videos: as for `predict`: one video, or an iterable of videos.
        layer: name of a module; None: the input of the classifier.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; see `pick_device`.
        workers: worker processes that decode paths and addresses.
        settings: further fields of `FeatureSettings`.

    Returns:
        the features of one video; a list for an iterable, a folder of videos or a pattern.

    Raises:
        UserError: the weights cannot be loaded, there is no such layer, or a video cannot be read.
    """
    model = model if isinstance(model, nn.Module) else load(model)
    extractor = Extractor(model.to(pick_device(device)), FeatureSettings(layer=layer, **settings))
    inputs = list(expand(cast(Any, [videos] if is_one(videos) else videos)))
    if not all(map(is_path, inputs)):
        workers = IN_PROCESS  # arrays and file objects are not copied to other processes
    found = []
    names = [name_of(item, i) if is_path(item) else f"<{name_of(item, i)}>" for i, item in enumerate(inputs)]
    reading = extractor.reading(names, partial(_open_number, inputs))
    for result in extractor.extract(reading, plan_parts(reading, range(len(inputs)), workers), workers):
        if isinstance(result, Fault):
            raise VideoError(result.reason)
        found.append(result)
    is_several = not is_one(videos) or (is_path(videos) and inputs != [as_path(videos)])
    return found if is_several else found[0]


def _open_number(inputs: list[OneVideo], number: int) -> Source:
    return open_input(inputs[number], name_of(inputs[number], number))
