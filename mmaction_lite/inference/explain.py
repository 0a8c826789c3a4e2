"""Explain a prediction: which frames and which regions of them speak for a class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.sources.resample import Size, short_side_size
from mmaction_lite.data.sources.sequential import frame_seconds
from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.device import pick_device
from mmaction_lite.errors import UserError, nearest, printable
from mmaction_lite.inference.gradcam import check_differentiable, default_layers, gradcam
from mmaction_lite.inference.inputs import OneVideo, name_of, open_input
from mmaction_lite.inference.layer_outputs import check_layer
from mmaction_lite.inference.map_geometry import FrameBox, place_in_frame, view_box
from mmaction_lite.inference.occlusion import Fill, space_time_drops, time_drops
from mmaction_lite.inference.rollout import check_attention, rollout
from mmaction_lite.inference.scores import chunk_views, compute_scores, device_of, forward_options
from mmaction_lite.settings import check_fields
from mmaction_lite.weights.card import ModelCard, card_of, load

Method = Literal["gradcam", "rollout", "occlusion"]


@dataclass(frozen=True, kw_only=True)
class ExplainSettings:
    """How to explain: everything besides the model, the video and the class.

    Args:
        layers: names of modules with a feature map, whose maps are added; see `gradcam`. Empty: see
            `default_layers`.
        method: "gradcam"; "rollout": the share of each place in the attention of a transformer, which does
            not depend on the class; or "occlusion": the drop of the logit when blocks of the clip are hidden,
            which needs no gradients but about 400 forward passes per clip.
        fill: what replaces hidden frames: the neighboring frame ("neighbor") or the mean color of the
            protocol's normalization ("mean"). None: skip the occlusion in time (`Explanation.drops`).
        protocol: None: the test protocol of the model's card. The crops are replaced by the center crop.
    """

    layers: tuple[str, ...] = ()
    method: Method = "gradcam"
    fill: Fill | None = "neighbor"
    protocol: Protocol | None = None

    def __post_init__(self):
        check_fields(self)


DEFAULT = ExplainSettings()


class Explanation(NamedTuple):
    """The frames and regions of a video that speak for a class. N distinct frames were seen.

    Args:
        label: the explained class.
        score: its probability.
        top_label: the most probable class of its group.
        top_score: the probability of that class.
        method: "gradcam", "rollout" or "occlusion".
        layers: layers whose feature maps were used; empty for other methods than Grad-CAM.
        maps: float32 (N, h, w) in [0, 1], at the size of a view. The maximum over the video is 1, unless no
            position speaks for the class; the maps are then 0.
        frames: numbers of the frames in the video, ascending, int64 (N,).
        seconds: their times in seconds after the first frame of the video, float64 (N,); NaN if the video has
            no frame rate.
        drops: drop of the class's logit when the frames around each frame are hidden, float32 (N,); None if
            not computed.
        frame_size: (height, width) of a frame of the video.
        box: (top, left, height, width) of the view in pixels of such a frame.
        protocol: the test protocol, with the center crop in place of several crops.
    """

    label: str
    score: float
    top_label: str
    top_score: float
    method: Method
    layers: tuple[str, ...]
    maps: np.ndarray
    frames: np.ndarray
    seconds: np.ndarray
    drops: np.ndarray | None
    frame_size: Size
    box: FrameBox
    protocol: Protocol

    def map_in_frame(self, position: int) -> np.ndarray:
        """Return one map at the size and position of the video's frames, float32 (height, width).

        Pixels outside of the view, which the network did not see, are 0.

        Args:
            position: of the frame among `frames`, in [0, N).
        """
        return place_in_frame(self.maps[position], self.box, self.frame_size)

    @property
    def frame_mass(self) -> np.ndarray:
        """Share of each frame in the sum of all maps, float64 (N,); zeros if the maps are 0."""
        mass = self.maps.sum((1, 2), dtype=np.float64)
        return mass / mass.sum() if mass.any() else mass

    def per_second(self) -> list[dict[str, Any]]:
        """Return, for every second of the video with a seen frame, the sum of the maps and the mean drop.

        Returns:
            dicts with start and end in seconds, mass (share of the sum of all maps) and, if it was computed,
            drop (of the logit). Empty if the video has no frame rate.
        """
        if not np.isfinite(self.seconds).all():
            return []
        second = np.floor(self.seconds + 1e-9).astype(int)
        rows = []
        for start in np.unique(second).tolist():
            inside = second == start
            row = {"start": start, "end": start + 1, "mass": float(self.frame_mass[inside].sum())}
            if self.drops is not None:
                row["drop"] = float(self.drops[inside].mean())
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the maps as values of JSON."""
        return {
            "label": self.label,
            "score": self.score,
            "top_label": self.top_label,
            "top_score": self.top_score,
            "method": self.method,
            "layers": list(self.layers),
            "frames": self.frames.tolist(),
            "seconds": self.seconds.tolist(),
            "frame_mass": self.frame_mass.tolist(),
            "drops": None if self.drops is None else self.drops.tolist(),
            "per_second": self.per_second(),
            "frame_size": list(self.frame_size),
            "box": list(self.box),
            "protocol": str(self.protocol),
        }


def explain(
    weights: str | Path | nn.Module,
    video: OneVideo,
    label: str | None = None,
    settings: ExplainSettings = DEFAULT,
    device: str = "auto",
) -> Explanation:
    """Explain a class of one video.

    The views are those of the test protocol, with the center crop in place of several crops. The maps of each
    clip are computed alone, and those of a frame that several clips contain are averaged.

    Args:
        weights: a weights file or run folder, as for `load`, or a model that `load` returned. A model is
            moved to the device and put into evaluation mode.
        video: see `predict`.
        label: class name. None: the most probable class; if the task has several groups of classes (verbs and
            nouns), that of the first group.
        settings: layers, method and protocol.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; see `pick_device`.

    Raises:
        UserError: the weights cannot be loaded, the video cannot be read, there is no such class or layer, or
            gradients of the model cannot be computed.
    """
    model = weights if isinstance(weights, nn.Module) else load(weights)
    model = model.to(pick_device(device))
    return explain_classes(model, video, None if label is None else [label], settings)[0]


def explain_classes(
    model: nn.Module,
    video: OneVideo,
    labels: Sequence[str] | None = None,
    settings: ExplainSettings = DEFAULT,
) -> list[Explanation]:
    """Explain several classes of one video, which is read once.

    Args:
        model: a model that `load` returned. It is put into evaluation mode.
        video: see `predict`.
        labels: class names. None: the most probable class of every group of classes.
        settings: layers, method and protocol.

    Raises:
        UserError: see `explain`.
    """
    protocol = explained_protocol(model, settings)
    with open_input(video, name_of(video, 0)) as source:
        clips = SeenClips.read(protocol, source)
    return explain_clips(model, clips, labels, settings)


def explained_protocol(model: nn.Module, settings: ExplainSettings = DEFAULT) -> Protocol:
    """Return the protocol of the clips to explain, and check that the settings fit the model.

    Raises:
        UserError: there is no such layer, or gradients or the attention of the model cannot be computed.
    """
    model = getattr(model, "_orig_mod", model)
    if settings.method == "gradcam":
        check_differentiable(model)
        for layer in settings.layers:
            check_layer(model, layer)
    elif settings.method == "rollout":
        check_attention(model)
    return (settings.protocol or card_of(model).test).with_views(crop="center")


def explain_clips(
    model: nn.Module,
    clips: "SeenClips",
    labels: Sequence[str] | None = None,
    settings: ExplainSettings = DEFAULT,
) -> list[Explanation]:
    """Explain several classes of the clips of one video; see `explain_classes`.

    Raises:
        UserError: see `explain`.
    """
    model = getattr(model, "_orig_mod", model).eval()  # a module of torch.compile calls no hooks
    card = card_of(model)
    chosen = None if labels is None else [class_index(card, label) for label in labels]
    protocol = clips.protocol
    with torch.no_grad():
        (scores,) = compute_scores(model, [clips.pixels], protocol, probabilities=card.task.probabilities)
    best = card.task.best_classes(scores)
    explained = []
    for target in best if chosen is None else chosen:
        maps, drops, layers = _compute_maps(model, clips, target, settings)
        top = _best_of_group(card, scores, best, target)
        explained.append(
            Explanation(
                label=card.classes[target],
                score=float(scores[target]),
                top_label=card.classes[top],
                top_score=float(scores[top]),
                method=settings.method,
                layers=layers,
                maps=_normalized(clips.merge(maps)),
                frames=clips.frames,
                seconds=clips.seconds,
                drops=None if drops is None else clips.merge(drops),
                frame_size=clips.frame_size,
                box=clips.box,
                protocol=protocol,
            )
        )
    return explained


def class_index(card: ModelCard, label: str) -> int:
    """Return the index of a class of a model.

    Raises:
        UserError: the model has no such class.
    """
    if label in card.classes:
        return card.classes.index(label)
    raise UserError(f"the model has no class {printable(label)!r}; {nearest(label, card.classes)}")


class SeenClips:
    """The clips of a video under a protocol with one crop.

    Args:
        protocol: the protocol.
        pixels: uint8 (num_clips, T, H, W, C), as `Protocol.read` returns them.
        indices: number of the frame of each position of the clips, int64 (num_clips · T,).
        times: their times in seconds, float64 (num_clips · T,); NaN without a frame rate.
        frame_size: (height, width) of a frame of the video.

    Attributes:
        frames: distinct numbers of the frames, ascending, int64 (N,).
        seconds: their times, float64 (N,), or NaN.
        box: of the view in a frame of the video.
    """

    def __init__(
        self, protocol: Protocol, pixels: Tensor, indices: np.ndarray, times: np.ndarray, frame_size: Size
    ) -> None:
        views = protocol.views
        self.protocol, self.pixels, self.frame_size = protocol, pixels, frame_size
        self.frames, first, self._places = np.unique(indices, return_index=True, return_inverse=True)
        self.seconds = times[first]
        short_side = views.short_side
        resized = self.frame_size if short_side is None else short_side_size(self.frame_size, short_side)
        (placement,) = views.crop.plan(*resized)
        self.box = view_box(self.frame_size, resized, placement.box)

    @classmethod
    def read(cls, protocol: Protocol, source: Source) -> "SeenClips":
        """Read the clips of a video.

        Raises:
            VideoError: the video cannot be read.
        """
        indices = protocol.views.indices(source).reshape(-1)
        pixels = torch.from_numpy(protocol.read(source))
        return cls(protocol, pixels, indices, frame_seconds(source, indices), source.size)

    def inputs(self, device: torch.device) -> list[Tensor]:
        """Return the normalized clips, float32 (1, C, T, h, w) each."""
        return [self.protocol.prepare(clip[None].to(device)) for clip in self.pixels]

    def merge(self, values: np.ndarray) -> np.ndarray:
        """Average the values of all clips, (num_clips · T, ...), over equal frames: float32 (N, ...)."""
        total = np.zeros((len(self.frames), *values.shape[1:]))
        np.add.at(total, self._places, values)
        counts = np.bincount(self._places).reshape(-1, *[1] * (values.ndim - 1))
        return (total / counts).astype(np.float32)


def _compute_maps(
    model: nn.Module, clips: SeenClips, target: int, settings: ExplainSettings
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Return maps (num_clips · T, h, w) of a class, drops (num_clips · T) or None, and the layers."""
    protocol, fill, layers = clips.protocol, settings.fill, settings.layers
    options = forward_options(model, protocol)
    size = chunk_views(protocol)

    def logit(x: Tensor) -> Tensor:
        logits = model(x, **options)
        return logits.reshape(len(x), -1, logits.shape[-1]).mean(1)[:, target]  # mean over windows

    maps, drops = [], []
    for inputs in clips.inputs(device_of(model)):
        if settings.method == "gradcam":
            layers = layers or default_layers(model, inputs, protocol.window)
            maps.append(gradcam(model, inputs, target, layers, protocol.window))
        elif settings.method == "rollout":
            maps.append(rollout(model, inputs))
        else:
            maps.append(space_time_drops(logit, inputs, fill or "neighbor", size).clip(min=0))
        if fill is not None:
            drops.append(time_drops(logit, inputs, fill, size))
    used = layers if settings.method == "gradcam" else ()
    return np.concatenate(maps), np.concatenate(drops) if drops else None, used


def _normalized(maps: np.ndarray) -> np.ndarray:
    """Divide maps by their maximum, unless they are 0."""
    return maps / maps.max() if maps.max() > 0 else maps


def _best_of_group(card: ModelCard, scores: np.ndarray, best: tuple[int, ...], target: int) -> int:
    """Return the one of the best classes that belongs to the same group as `target`."""
    for top in best:
        # A class replaces the best one of its own group only.
        raised = scores.copy()
        raised[target] = 2
        if top not in card.task.best_classes(raised) or top == target:
            return top
    return target
