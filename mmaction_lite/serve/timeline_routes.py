"""Timeline jobs: POST /v1/timeline starts one, /v1/jobs/ID shows its progress and its results."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from mmaction_lite.errors import UserError
from mmaction_lite.inference.segments import PathRule, check_background
from mmaction_lite.inference.windows import Windows
from mmaction_lite.serve.events import Event, Poll, stream_events
from mmaction_lite.serve.jobs import Job
from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.services import Services, services_of
from mmaction_lite.serve.timeline import Question, Timeline, run_timeline
from mmaction_lite.serve.uploads import Form, receive_form
from mmaction_lite.serve.video_input import decimal_number, form_body, keep_video, whole_number

ROWS_AT_ONCE = 100  # windows of an event
MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "mp4": "video/mp4",
}

router = APIRouter(prefix="/v1", tags=["timeline"])


class JobAnswer(BaseModel):
    """State of a job."""

    id: str = Field(description="Identifier of the job.")
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    done: int = Field(description="Windows that are computed.")
    total: int = Field(description="All windows; 0 as long as their number is not known.")
    problem: dict[str, Any] | None = Field(None, description="Why the job failed.")


@router.post(
    "/timeline",
    status_code=202,
    response_model=JobAnswer,
    response_model_exclude_unset=True,
    summary="Start to find the actions in a video",
    openapi_extra=form_body(
        stride={"type": "number", "default": 0.5, "description": "Distance between windows in seconds."},
        window={"type": "number", "description": "Length of a window in seconds."},
        background={"type": "string", "description": "Class that means that nothing happens."},
        top={"type": "integer", "minimum": 1, "default": 5, "description": "Number of classes of a window."},
    ),
)
async def start_timeline(
    request: Request, response: Response, services: Annotated[Services, Depends(services_of)]
) -> dict[str, Any]:
    """Start a job that scores the sliding windows of a video, as `mmaction-lite timeline` does."""
    async with receive_form(request, services.uploads, services.settings) as form:
        question = _question(form, services)
        folder = services.uploads.new_path()
        video = await keep_video(form, services, folder)
        worker = services.job_worker(video, question.known)
        job = services.jobs.start(folder, video, lambda job: run_timeline(job, question, worker))
    services.follow(job)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job.to_json()


def _question(form: Form, services: Services) -> Question:
    """Return what a form asks.

    Raises:
        Problem: a value is invalid.
    """
    known = services.models.find(form.fields.get("model"))
    name = form.fields.get("background", "")
    rule = PathRule(background=(name,) if name else ())
    try:
        check_background(rule, known.card.classes)
        windows = Windows(
            seconds=decimal_number(form, "window", None, 0.01, 3600.0),
            stride=decimal_number(form, "stride", 0.5, 0.01, 3600.0) or 0.5,
        )
    except UserError as error:
        raise Problem("invalid-value", str(error)) from None
    return Question(known, windows, rule, whole_number(form, "top", 5, 1, 20))


@router.get(
    "/jobs/{number}", response_model=JobAnswer, response_model_exclude_unset=True, summary="State of a job"
)
async def get_job(number: str, services: Annotated[Services, Depends(services_of)]) -> dict[str, Any]:
    """Return the state of a job."""
    return services.jobs.get(number).to_json()


@router.delete(
    "/jobs/{number}",
    response_model=JobAnswer,
    response_model_exclude_unset=True,
    summary="Cancel a job, or delete its results",
)
async def cancel_job(number: str, services: Annotated[Services, Depends(services_of)]) -> dict[str, Any]:
    """Cancel a job that is queued or running; forget one that has ended, with its results."""
    return (await asyncio.to_thread(services.jobs.cancel, number)).to_json()


@router.get("/jobs/{number}/events", response_class=StreamingResponse, summary="Follow a job")
async def follow_job(
    number: str,
    services: Annotated[Services, Depends(services_of)],
    last_event_id: Annotated[str | None, Header(description="Number of windows that are known.")] = None,
) -> StreamingResponse:
    """Send the events `progress`, `windows` (new windows), `problem` and `done` as server-sent events."""
    text = last_event_id or ""
    first = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    return stream_events(job_events(services.jobs.get(number), first), is_closing=lambda: services.is_closing)


def job_events(job: Job, sent: int) -> Poll:
    """Return a function that returns the new events of a job.

    Args:
        job: the job.
        sent: number of windows that the client knows.
    """
    last: dict[str, Any] | None = None

    def poll() -> tuple[list[Event], bool]:
        nonlocal sent, last
        state, timeline = job.to_json(), job.value  # the state first: it may be the last one
        events = []
        while isinstance(timeline, Timeline) and sent < timeline.count:
            rows = timeline.rows(sent, ROWS_AT_ONCE)
            events.append(Event("windows", {"first": sent, "windows": rows}, str(sent + len(rows))))
            sent += len(rows)
        if state != last:
            events.append(Event("progress", state))
            last = state
        if state["state"] == "failed":
            events.append(Event("problem", state.get("problem")))
        elif state["state"] in ("done", "cancelled"):
            events.append(Event("done", state))
        return events, state["state"] in ("failed", "done", "cancelled")

    return poll


@router.get("/jobs/{number}/result.{kind}", response_class=FileResponse, summary="Results of a job")
async def get_result(
    number: str,
    kind: Literal["json", "csv", "srt", "vtt", "mp4"],
    services: Annotated[Services, Depends(services_of)],
) -> FileResponse:
    """Return the results as JSON, table, subtitles, or annotated video (encoded at the first request)."""
    job = services.jobs.get(number)
    if job.state != "done":
        raise Problem("conflict", f"the job is {job.state}; its results exist when it is done")
    path: Path = job.folder / f"result.{kind}"
    if kind == "mp4":
        with services.admission.request():
            path = await services.annotated_file(job)
    if not path.is_file():
        services.jobs.get(number)  # raises `gone` if the job has expired since
        raise Problem("gone", "the result was deleted")
    headers = {"Cache-Control": "private, no-store"}
    return FileResponse(path, media_type=MEDIA_TYPES[kind], filename=f"timeline.{kind}", headers=headers)
