"""Clips of a data set with labels and predictions, for `serve --data`."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from mmaction_lite.data.annotations.splits import Split
from mmaction_lite.errors import UserError
from mmaction_lite.serve import dataset as datasets
from mmaction_lite.serve.clip_videos import VIDEO_TYPES
from mmaction_lite.serve.dataset import Dataset, Sort
from mmaction_lite.serve.metrics import LOGGER
from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.services import Services, services_of
from mmaction_lite.serve.uploads import receive_small

MOST_PAGES = 1_000_000
Known = Annotated[Services, Depends(services_of)]
Name = Annotated[str | None, Query(max_length=500)]


class SmallBodyRoute(APIRoute):
    """Route whose body is limited in size and time. FastAPI reads bodies of any size into memory."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        handle = super().get_route_handler()

        async def handle_small(request: Request) -> Response:
            if request.method != "POST":
                return await handle(request)
            body = await receive_small(request, services_of(request).settings)

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": body, "more_body": False}

            return await handle(Request(request.scope, receive))

        return handle_small


router = APIRouter(prefix="/v1/data", tags=["data set"], route_class=SmallBodyRoute)


class ClassCount(BaseModel):
    """A class and the number of its clips."""

    name: str = Field(alias="class")
    num_clips: int
    num_wrong: int | None = Field(description="Clips with a wrong prediction; null without predictions.")


class SummaryAnswer(BaseModel):
    """A data set."""

    name: str
    split: Split
    num_clips: int
    num_corrected: int = Field(description="Clips whose label was corrected.")
    has_predictions: bool
    protocol: str | None = Field(description="Protocol line of the predictions.")
    classes: list[ClassCount]


class Clip(BaseModel):
    """A clip of a data set."""

    id: str = Field(description="Identifier of the clip.")
    name: str = Field(description="Its path below the data set.")
    labels: list[str] = Field(description="Class names in the data set.")
    corrected: list[str] | None = Field(description="Corrected class names; null without a correction.")
    predicted: list[str] | None = Field(description="Predicted class names; null without a prediction.")
    probability: float | None = Field(description="Probability of the first predicted class.")
    true_probability: float | None = Field(description="Probability of the label.")
    wrong: bool | None = Field(description="Whether the prediction is wrong; null without a prediction.")
    start: float | None = Field(description="Start in the video, in seconds; null: the beginning.")
    end: float | None = Field(description="End in the video, in seconds; null: the end.")


class PageAnswer(BaseModel):
    """One page of clips."""

    num_clips: int = Field(description="Clips on all pages.")
    page: int
    num_pages: int
    clips: list[Clip]


class Correction(BaseModel):
    """The right class names of a clip."""

    model_config = ConfigDict(extra="forbid")
    labels: list[Annotated[str, Field(max_length=500)]] | None = Field(
        max_length=1000, description="Class names; null removes the correction."
    )


@router.get("/summary", response_model=SummaryAnswer, summary="Classes and number of clips")
async def summary(services: Known) -> dict[str, Any]:
    """Return the classes of the data set, with the number of clips and of wrong predictions."""
    return await _read(_dataset(services).summary)


@router.get("/clips", response_model=PageAnswer, summary="List clips")
async def clips(
    services: Known,
    label: Annotated[str | None, Query(alias="class", max_length=500)] = None,
    predicted: Name = None,
    wrong: bool | None = None,
    corrected: bool | None = None,
    sort: Sort = "worst",
    page: Annotated[int, Query(ge=1, le=MOST_PAGES)] = 1,
) -> dict[str, Any]:
    """List the clips that fit, by default with the lowest probability of the true class first."""
    query = datasets.Query(label, predicted, wrong, corrected, sort, page)
    return await _read(_dataset(services).page, query)


@router.get("/clips/{clip}", response_model=Clip, summary="A clip")
async def get_clip(clip: str, services: Known) -> dict[str, Any]:
    """Return labels and prediction of a clip."""
    dataset, number = _find(services, clip)
    return await _read(dataset.clip, number)


@router.get("/clips/{clip}/video", response_class=FileResponse, summary="Video of a clip")
async def clip_video(
    clip: str,
    services: Known,
    convert: Annotated[bool, Query(description="Encode again, for browsers that cannot play it.")] = False,
) -> FileResponse:
    """Return the video of a clip, or a part of it (Range). Formats unknown to browsers are converted."""
    dataset, number = _find(services, clip)
    with services.admission.request():  # the file may have to be converted
        path = await services.clip_videos.playable(dataset.samples.path(number), clip, must_convert=convert)
    headers = {"Cache-Control": "private, no-cache"}
    return FileResponse(path, media_type=VIDEO_TYPES.get(path.suffix.lower(), "video/mp4"), headers=headers)


@router.post("/clips/{clip}/label", response_model=Clip, summary="Correct the label of a clip")
async def correct_label(clip: str, correction: Correction, services: Known) -> dict[str, Any]:
    """Store the right class names in the corrections file. The data set itself does not change."""
    dataset, number = _find(services, clip)
    try:
        dataset.check_labels(correction.labels)
    except UserError as error:
        raise Problem("invalid-value", str(error)) from None
    try:
        await asyncio.to_thread(dataset.correct, number, correction.labels)
    except UserError:  # its text names the file
        raise Problem("storage-full", "the correction cannot be stored") from None
    return await _read(dataset.clip, number)


async def _read(method: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """Call a method of the data set that reads the corrections file, in a thread."""
    try:
        return await asyncio.to_thread(method, *arguments)
    except UserError as error:  # its text names the file
        logging.getLogger(LOGGER).error("%s", error)
        raise Problem("data-unreadable", "the corrections file cannot be read") from None


def _dataset(services: Services) -> Dataset:
    if services.dataset is None:
        raise Problem("not-found", "the server was started without --data")
    return services.dataset


def _find(services: Services, clip: str) -> tuple[Dataset, int]:
    dataset = _dataset(services)
    number = dataset.find(clip)
    if number is None:
        raise Problem("not-found", "the data set has no such clip")
    return dataset, number
