"""The models of the server, its limits and its state."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.services import Services, services_of

router = APIRouter(tags=["status"])


class ModelInfo(BaseModel):
    """A model of the server."""

    name: str = Field(description="Name for the field `model` of requests.")
    builder: str = Field(description="Name of the network in mmaction_lite.models.")
    num_classes: int
    protocol: str = Field(description="Test protocol: views, size and averaging.")
    loaded: bool = Field(description="Whether the model is in memory.")
    can_explain: bool = Field(description="Whether POST /v1/explain accepts the model.")
    default: bool = Field(description="Whether requests without `model` use it.")


class Views(BaseModel):
    """Further views of the page."""

    data: bool = Field(description="Whether the server shows a data set, see GET /v1/data/summary.")
    run: bool = Field(description="Whether the server shows a training, see GET /v1/run.")


class ModelsAnswer(BaseModel):
    """All models of the server, its views, and the limits of requests."""

    models: list[ModelInfo]
    views: Views
    limits: dict[str, float | int | bool | None]


@router.get("/v1/models", response_model=ModelsAnswer, summary="List the models and the limits")
async def list_models(services: Annotated[Services, Depends(services_of)]) -> dict[str, Any]:
    """List the models of the server, the default first, its views, and the limits of requests."""
    models = [
        {
            "name": known.name,
            "builder": known.card.builder,
            "num_classes": len(known.card.classes),
            "protocol": str(known.card.test),
            "loaded": services.models.is_loaded(known.name),
            "can_explain": not known.is_exported,
            "default": known.name == services.models.default,
        }
        for known in services.models.known.values()
    ]
    views = {"data": services.dataset is not None, "run": services.run is not None}
    return {"models": models, "views": views, "limits": services.settings.limits()}


@router.get("/v1/models/{name}/classes", summary="List the classes of a model")
async def list_classes(
    name: str, services: Annotated[Services, Depends(services_of)]
) -> dict[str, list[str]]:
    """List the class names of a model in the order of their indices."""
    return {"classes": list(services.models.find(name).card.classes)}


@router.get("/healthz", summary="Whether the process responds")
async def healthz() -> dict[str, str]:
    """Return "ok" as long as the process responds."""
    return {"status": "ok"}


@router.get("/readyz", summary="Whether the server accepts requests")
async def readyz(services: Annotated[Services, Depends(services_of)]) -> dict[str, str]:
    """Return "ready", or a problem while the server shuts down."""
    if services.admission.is_draining or not services.is_ready:
        raise Problem("shutting-down", headers={"Retry-After": "5"})
    return {"status": "ready"}


@router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(services: Annotated[Services, Depends(services_of)]) -> Response:
    """Return counters and durations in the text format of Prometheus."""
    return Response(services.metrics.text(), media_type=CONTENT_TYPE_LATEST)
