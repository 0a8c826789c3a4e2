"""POST /v1/explain: which frames and regions of a video speak for a class (Grad-CAM)."""

import base64
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from PIL import Image
from pydantic import BaseModel, Field

from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.errors import UserError
from mmaction_lite.inference.explain import (
    ExplainSettings,
    Explanation,
    SeenClips,
    explain_clips,
    explained_protocol,
)
from mmaction_lite.serve.numbers import finite
from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.readers import ClipReader
from mmaction_lite.serve.services import Services, services_of
from mmaction_lite.serve.uploads import receive_form
from mmaction_lite.serve.video_input import form_body, video_file

MOST_CLIPS = 3  # of a protocol with more clips; each needs a forward and a backward pass
MOST_MAPS = 64  # distributed over the video
LONGEST_SIDE = 64  # of a map; a feature map has about 7 cells a side

CLASS_FIELD: dict[str, dict[str, object]] = {
    "class": {"type": "string", "description": "Name of a class; the most probable one by default."}
}

router = APIRouter(prefix="/v1", tags=["explain"])


class FrameMap(BaseModel):
    """How much each region of a frame speaks for the class."""

    frame: int = Field(description="Number of the frame, from 0.")
    seconds: float | None = Field(description="Time in the video; null if the frame rate is unknown.")
    mass: float = Field(description="Share of this frame in the sum of all maps.")
    width: int
    height: int
    values: str = Field(description="Base64 of height x width bytes, row by row; 255 is the maximum.")


class ExplainAnswer(BaseModel):
    """Grad-CAM maps of a class."""

    model: str
    protocol: str = Field(description="Views of the explained clips.")
    name: str = Field(alias="class", description="The explained class.")
    probability: float | None = Field(description="Its probability.")
    layers: list[str] = Field(description="Layers of the network whose feature maps were used.")
    box: tuple[float, float, float, float] = Field(
        description="Place of the maps in the picture: x, y, width and height as shares of its size."
    )
    maps: list[FrameMap] = Field(description="One map for each frame, in order.")


@router.post(
    "/explain",
    response_model=ExplainAnswer,
    summary="Explain a class of a video",
    openapi_extra=form_body(**CLASS_FIELD),
)
async def explain(request: Request, services: Annotated[Services, Depends(services_of)]) -> dict[str, Any]:
    """Compute Grad-CAM maps, as `mmaction-lite explain` does, for the frames that the network sees."""
    async with receive_form(request, services.uploads, services.settings) as form:
        known = services.models.find(form.fields.get("model"))
        if known.is_exported:
            raise Problem("unsuitable-model", "an exported model has no gradients")
        label = form.fields.get("class")
        if label is not None and label not in known.card.classes:
            raise Problem("invalid-value", f"the model has no class {label[:100]!r}")
        async with video_file(form, services) as path:
            protocol = _protocol(known.card.test)
            reading = await services.pool.read(path, ClipReader(views=protocol.views, limits=services.limits))
        pixels = await services.resize(protocol.views, reading)
        height, width = reading.details["size"]
        clips = SeenClips(
            protocol, pixels, reading.details["frames"], reading.details["frame_seconds"], (height, width)
        )
        async with services.models.use(known.name, is_folded=False) as model:
            found = await services.network.run(_explain, model, clips, label)
        return {"model": known.name, **to_json(found)}


def _protocol(protocol: Protocol) -> Protocol:
    """Return a test protocol with the center crop and a few clips."""
    clips = getattr(protocol.views.clips, "num_clips", 1)
    return protocol.with_views(num_clips=MOST_CLIPS if clips > MOST_CLIPS else None, crop="center")


def _explain(model: Any, clips: SeenClips, label: str | None) -> Explanation:
    """Explain one class; runs in the network thread.

    Raises:
        Problem: the model has no gradients, or no feature map.
    """
    settings = ExplainSettings(fill=None, protocol=clips.protocol)
    try:
        explained_protocol(model, settings)
        return explain_clips(model, clips, None if label is None else [label], settings)[0]
    except UserError as error:
        raise Problem("unsuitable-model", str(error)) from None


def to_json(found: Explanation) -> dict[str, Any]:
    """Return an explanation as values of JSON, with maps of a few pixels."""
    top, left, height, width = found.box
    frame_height, frame_width = found.frame_size
    chosen = np.unique(
        np.linspace(0, len(found.maps) - 1, min(MOST_MAPS, len(found.maps))).round().astype(int)
    )
    return {
        "protocol": str(found.protocol),
        "class": found.label,
        "probability": finite(found.score),
        "layers": list(found.layers),
        "box": (left / frame_width, top / frame_height, width / frame_width, height / frame_height),
        "maps": [_map_to_json(found, position) for position in chosen.tolist()],
    }


def _map_to_json(found: Explanation, position: int) -> dict[str, Any]:
    image = Image.fromarray((found.maps[position] * 255).round().astype(np.uint8))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
    return {
        "frame": int(found.frames[position]),
        "seconds": finite(float(found.seconds[position])),
        "mass": float(found.frame_mass[position]),
        "width": image.width,
        "height": image.height,
        "values": base64.b64encode(image.tobytes()).decode("ascii"),
    }
