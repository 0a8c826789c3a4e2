"""Classify a stream frame by frame with an online TSM, at the cost of its image network."""

from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.sources.source import ArrayVideo
from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import ClipSampler, DenseClips, TimedClips
from mmaction_lite.device import pick_device
from mmaction_lite.errors import UserError
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.online_step import OnlineStep
from mmaction_lite.weights.card import card_of, load
from mmaction_lite.weights.exported import check_has_layers


@dataclass(frozen=True, kw_only=True)
class StreamAnswer:
    """Predicted classes of a stream after one frame.

    Args:
        frame: number of the frame in the stream, from 0.
        labels: all class names, the most probable first.
        scores: probabilities in the order of `labels`, float32 (K,).
        probabilities: the same in the order of `Stream.classes`, float32 (K,).
        logits: of this frame alone, float32 (num_logits,).
        protocol: the protocol line.
    """

    frame: int
    labels: tuple[str, ...]
    scores: np.ndarray
    probabilities: np.ndarray
    logits: np.ndarray
    protocol: str


class Stream:
    """A stream of frames, each classified when it arrives.

    The network runs once per frame and reads features of the frame before from a cache. The logits of a frame
    equal those that the network computes for it in a clip of all frames so far; time and memory per frame are
    constant. Frames are resized, cropped in the center and normalized as in the test protocol.

    Use one object in one thread. To share the weights of several streams, pass one `OnlineStep` to them.

    Args:
        model: weights of an online TSM (file, run folder or name), a model that `load` returned, or an
            `OnlineStep` of one. The stream optimizes a copy of a model; an `OnlineStep` moves to the device.
        average: the probabilities are those of the mean logits of this many latest frames; 1: of the current
            frame. None: as many as the clips of the test protocol have, whose mean the training optimizes.
        frame_interval: classify every n-th frame, so that the motion between two frames is as large as in
            training; otherwise the answers are wrong. None: the interval of the test protocol, if it has one.
        device: see `pick_device`.

    Attributes:
        classes: class names in the order of `StreamAnswer.probabilities`.
        protocol: protocol of one frame.

    Raises:
        UserError: the model is no online TSM or cannot be loaded; a value is out of range; neither the caller
            nor the test protocol names an interval.
    """

    def __init__(
        self,
        model: str | Path | nn.Module,
        *,
        average: int | None = None,
        frame_interval: int | None = None,
        device: str = "auto",
    ) -> None:
        if isinstance(model, OnlineStep):
            step = model
        else:
            model = model if isinstance(model, nn.Module) else load(model)
            check_has_layers(model)
            OnlineStep(model)  # refuses other networks before they are copied
            step = OnlineStep(optimize_for_inference(model))
        self._device = pick_device(device)
        self._step = step.to(self._device)
        card = card_of(step.network)
        self._task = card.task
        self.classes = card.classes
        views = card.test.views
        sampler = views.clips
        self._average = _at_least_one("average", sampler.clip_len if average is None else average)
        interval = _interval(sampler) if frame_interval is None else frame_interval
        self._interval = _at_least_one("frame_interval", interval)
        views = replace(views, clips=DenseClips(clip_len=1), crop=CenterCrop(size=views.crop.size))
        self.protocol: Protocol = replace(card.test, views=views, window=None)
        self.reset()

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a stream."""
        self._num_frames = 0
        self._caches: tuple[Tensor, ...] = ()
        self._logits: deque[Tensor] = deque(maxlen=self._average)

    @torch.inference_mode()
    def push(self, frame: np.ndarray) -> StreamAnswer | None:
        """Classify the next frame.

        Args:
            frame: RGB pixels, uint8 (height, width, 3). OpenCV reads BGR; pass `frame[..., ::-1]`.

        Returns:
            the answer, or None for a frame that `frame_interval` skips.

        Raises:
            UserError: the frame has another type or shape.
        """
        number = self._num_frames
        pixels = _checked(frame, number)
        self._num_frames += 1
        if number % self._interval:
            return None
        clip = torch.from_numpy(self.protocol.read(ArrayVideo(pixels[None]))).to(self._device)
        logits, *caches = self._step(self.protocol.prepare(clip)[:, :, 0], *self._caches)
        self._caches = tuple(caches)
        self._logits.append(logits[0].float())
        mean = torch.stack(tuple(self._logits)).mean(0)
        # One view: the frames are averaged in logits, as in the network. This applies the temperature.
        averaged = self.protocol.average_logits(mean[None, None], self._task.probabilities)
        probabilities = averaged[0].cpu().numpy()
        labels, scores = self._task.ranked(probabilities, self.classes)
        return StreamAnswer(
            frame=number,
            labels=labels,
            scores=scores,
            probabilities=probabilities,
            logits=self._logits[-1].cpu().numpy(),
            protocol=str(self),
        )

    def __str__(self) -> str:
        """Return the protocol line."""
        every = "every frame" if self._interval == 1 else f"every {self._interval} frames"
        return f"online, {every}, mean logits of the last {self._average}: {self.protocol}"


def _interval(sampler: ClipSampler) -> int:
    """Return the distance in frames between two frames of a clip."""
    if isinstance(sampler, DenseClips):
        return sampler.frame_interval
    if isinstance(sampler, TimedClips):
        reason = f"the clips of the weights have {sampler.target_fps:g} frames per second"
        advice = f"the frame rate of the stream divided by {sampler.target_fps:g}"
    else:
        reason = f"the {sampler.clip_len} frames of a clip were spread over the whole video"
        advice = f"the frames of a typical training video divided by {sampler.clip_len}"
    raise UserError(
        f"Stream: frame_interval is None, and {reason}; expected the distance in frames between two "
        f"classified frames. Pass frame_interval=N, {advice}"
    )


def _at_least_one(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"Stream: {name} is {value!r}; expected an integer, at least 1")
    return value


def _checked(frame: object, number: int) -> np.ndarray:
    pixels = np.asarray(frame)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UserError(
            f"frame {number} of the stream is {pixels.dtype} {pixels.shape}; expected uint8 "
            "(height, width, 3) in RGB"
        )
    return pixels
