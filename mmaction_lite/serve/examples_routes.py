"""GET /v1/examples: videos to try the server with."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from mmaction_lite.serve.examples import list_examples
from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.services import Services, services_of

router = APIRouter(prefix="/v1", tags=["examples"])


class ExampleInfo(BaseModel):
    """An example."""

    name: str = Field(description="Name for the field `example` of requests.")
    title: str
    label: str | None = Field(alias="class", description="Its class; null if it has several.")
    url: str = Field(description="Address of the video.")


class ExamplesAnswer(BaseModel):
    """All examples."""

    examples: list[ExampleInfo]


@router.get("/examples", response_model=ExamplesAnswer, summary="List the examples")
async def examples() -> dict[str, Any]:
    """List the examples: generated clips of a moving, turning or fading shape."""
    return {
        "examples": [
            {"name": name, "title": title, "class": label, "url": f"/v1/examples/{name}"}
            for name, title, label, _ in list_examples()
        ]
    }


@router.get("/examples/{name}", response_class=FileResponse, summary="Video of an example")
async def example_video(name: str, services: Annotated[Services, Depends(services_of)]) -> FileResponse:
    """Return the video of an example, H.264 in MP4."""
    path = await asyncio.to_thread(services.examples.path, name)
    if path is None:
        raise Problem("not-found", "there is no such example")
    return FileResponse(path, media_type="video/mp4")
