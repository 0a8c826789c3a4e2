"""GET /v1/run: the curves of a training, for `serve --run`."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from mmaction_lite.serve.events import Event, Poll, stream_events
from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.run_curves import RunCurves
from mmaction_lite.serve.services import Services, services_of

POLL_SECONDS = 1.0

router = APIRouter(prefix="/v1", tags=["run"])


class RunAnswer(BaseModel):
    """Curves and state of a training."""

    name: str
    state: Literal["waiting", "training", "stopped", "finished"]
    recipe: str = Field(description="Name of the recipe and seed; empty if not known.")
    updated_seconds: float | None = Field(description="Time since the last row; null without a row.")
    training: list[dict[str, Any]] = Field(description="Rows of training steps, with step, epoch and loss.")
    validation: list[dict[str, Any]] = Field(description="Rows of validations, with metrics and protocol.")


@router.get("/run", response_model=RunAnswer, summary="Curves of the training")
async def get_run(services: Annotated[Services, Depends(services_of)]) -> dict[str, Any]:
    """Return the curves of the run folder that the server was started with."""
    return (await asyncio.to_thread(_curves(services).read))._asdict()


@router.get("/run/events", response_class=StreamingResponse, summary="Follow the training")
async def follow_run(services: Annotated[Services, Depends(services_of)]) -> StreamingResponse:
    """Send the event `run` with new rows, as server-sent events, as long as the client listens."""
    poll = run_events(_curves(services))
    return stream_events(poll, is_closing=lambda: services.admission.is_draining, seconds=POLL_SECONDS)


def run_events(curves: RunCurves) -> Poll:
    """Return a function that returns the event `run` if the run has changed: its state and the new rows.

    `is_reset` is true if the client has to drop earlier rows, because a resumed training wrote them again.
    """
    known = {"training": -1, "validation": -1}  # last step that the client knows
    last_state = ""

    def poll() -> tuple[list[Event], bool]:
        nonlocal last_state
        found = curves.read()
        rows = {"training": found.training, "validation": found.validation}
        is_reset = any(part and part[-1]["step"] < known[name] for name, part in rows.items())
        if is_reset:
            known.update(training=-1, validation=-1)
        new = {name: [row for row in part if row["step"] > known[name]] for name, part in rows.items()}
        if not any(new.values()) and found.state == last_state:
            return [], False
        last_state = found.state
        known.update({name: part[-1]["step"] for name, part in new.items() if part})
        return [Event("run", found._asdict() | new | {"is_reset": is_reset})], False

    return poll


def _curves(services: Services) -> RunCurves:
    if services.run is None:
        raise Problem("not-found", "the server was started without --run")
    return services.run
