"""POST /v1/predict: classify one video."""

import asyncio
import base64
import io
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from PIL import Image
from pydantic import BaseModel, Field
from torch import Tensor

from mmaction_lite.serve.decoding import Reading
from mmaction_lite.serve.models import KnownModel
from mmaction_lite.serve.numbers import finite
from mmaction_lite.serve.readers import ClipReader
from mmaction_lite.serve.services import Services, services_of
from mmaction_lite.serve.uploads import receive_form
from mmaction_lite.serve.video_input import form_body, is_set, video_file, whole_number

MOST_CLASSES = 10_000
MOST_THUMBNAILS = 32
THUMBNAIL_SIDE = 160  # pixels of the longer side

router = APIRouter(prefix="/v1", tags=["predict"])


class PredictedClass(BaseModel):
    """A class and its probability."""

    name: str = Field(alias="class", description="Name of the class.")
    index: int | None = Field(description="Its index among the classes; null if it combines several.")
    probability: float | None = Field(description="From 0 to 1; null if it is not a finite number.")


class UsedFrame(BaseModel):
    """A frame that the network saw."""

    index: int = Field(description="Number of the frame, from 0.")
    seconds: float | None = Field(description="Time in the video; null if the frame rate is unknown.")
    thumbnail: str | None = Field(None, description="JPEG picture as a data URL, if requested.")


class Timing(BaseModel):
    """Duration of the stages, in milliseconds."""

    upload: float = Field(description="Receiving the form.")
    decode: float = Field(description="Reading the frames.")
    queue: float = Field(description="Waiting for a decoding process and for the forward pass.")
    network: float = Field(description="Forward pass of the batch.")


class PredictAnswer(BaseModel):
    """Prediction of one video."""

    model: str = Field(description="Name of the model.")
    protocol: str = Field(description="Views, averaging and precision of the prediction.")
    duration_seconds: float = Field(description="Duration of the video.")
    fps: float | None = Field(description="Frames per second; null if unknown.")
    size: tuple[int, int] = Field(description="Height and width of an upright frame, in pixels.")
    predictions: list[PredictedClass] = Field(description="Classes, the most probable first.")
    frames: list[UsedFrame] = Field(description="Frames that the network saw, in order.")
    timing_ms: Timing


@router.post(
    "/predict",
    response_model=PredictAnswer,
    response_model_exclude_unset=True,
    summary="Classify a video",
    openapi_extra=form_body(
        top={"type": "integer", "minimum": 1, "default": 5, "description": "Number of classes."},
        thumbnails={"type": "boolean", "default": False, "description": "Return pictures of the frames."},
    ),
)
async def predict(request: Request, services: Annotated[Services, Depends(services_of)]) -> dict[str, Any]:
    """Classify a video under the test protocol of a model, as `mmaction-lite predict` does."""
    async with receive_form(request, services.uploads, services.settings) as form:
        known = services.models.find(form.fields.get("model"))
        top = whole_number(form, "top", 5, 1, MOST_CLASSES)
        has_thumbnails = is_set(form, "thumbnails")
        views = known.card.test.views
        async with video_file(form, services) as path:
            reading = await services.pool.read(path, ClipReader(views=views, limits=services.limits))
        pixels = await services.resize(views, reading)
        async with services.models.use(known.name) as model:
            scored = await services.network.scores(model, pixels)
        frames = await asyncio.to_thread(_frames, pixels, reading, has_thumbnails)
        timing = {
            "upload": form.seconds,
            "decode": reading.seconds,
            "queue": reading.queue_seconds + scored.queue_seconds,
            "network": scored.network_seconds,
        }
        services.metrics.observe_stages(timing, form.file)
        return {
            "model": known.name,
            "protocol": str(known.card.test),
            **{name: reading.details[name] for name in ("duration_seconds", "fps", "size")},
            "predictions": ranked_classes(known, scored.scores, top),
            "frames": frames,
            "timing_ms": {stage: round(1000 * seconds, 3) for stage, seconds in timing.items()},
        }


def ranked_classes(known: KnownModel, scores: np.ndarray, top: int) -> list[dict[str, Any]]:
    """Return the most probable classes of a video as `PredictedClass`.

    Args:
        known: the model.
        scores: probabilities, float32 (K,).
        top: number of classes at most.
    """
    names, ranked = known.card.task.ranked(scores, known.card.classes)
    numbers = {name: number for number, name in enumerate(known.card.classes)}
    return [
        {
            "class": name,
            "index": numbers.get(name),
            "probability": finite(float(score)),
        }
        for name, score in zip(names[:top], ranked[:top], strict=True)
    ]


def _frames(pixels: Tensor, reading: Reading, has_thumbnails: bool) -> list[dict[str, Any]]:
    """Return the frames that the network saw as `UsedFrame`, each once."""
    unique, first = np.unique(reading.details["frames"], return_index=True)
    times = reading.details["frame_seconds"][first]
    found: list[dict[str, Any]] = [
        {"index": number, "seconds": finite(seconds)}
        for number, seconds in zip(unique.tolist(), times.tolist(), strict=True)
    ]
    if has_thumbnails:
        flat = pixels.flatten(0, 1).numpy()
        chosen = np.linspace(0, len(unique) - 1, min(MOST_THUMBNAILS, len(unique))).round().astype(int)
        for position in np.unique(chosen).tolist():
            found[position]["thumbnail"] = _thumbnail(flat[first[position]])
    return found


def _thumbnail(frame: np.ndarray) -> str:
    """Return a JPEG picture of a frame, uint8 (H, W, 3), as a data URL."""
    image = Image.fromarray(frame)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
