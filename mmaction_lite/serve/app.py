"""The application: one object that uvicorn, Ray Serve or any other ASGI server runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from mmaction_lite import __version__
from mmaction_lite.serve import (
    dataset_routes,
    examples_routes,
    explain_routes,
    predict_routes,
    problems,
    run_routes,
    status_routes,
    timeline_routes,
)
from mmaction_lite.serve.dataset import Dataset
from mmaction_lite.serve.models import Models
from mmaction_lite.serve.run_curves import RunCurves
from mmaction_lite.serve.services import Services
from mmaction_lite.serve.settings import ServeSettings

PAGE = Path(__file__).parent / "page"
ROUTERS = (
    predict_routes.router,
    timeline_routes.router,
    explain_routes.router,
    examples_routes.router,
    dataset_routes.router,
    run_routes.router,
    status_routes.router,
)


def create_app(
    settings: ServeSettings, models: Models, *, dataset: Dataset | None = None, run: RunCurves | None = None
) -> FastAPI:
    """Create the application.

    Args:
        settings: settings of the server.
        models: its models.
        dataset: data set of the dataset mode.
        run: training of the run mode.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = app.state.services = Services(settings, models, dataset, run)
        try:
            await services.start()
            yield
        finally:
            await services.close()

    app = FastAPI(
        title="mmaction-lite",
        version=__version__,
        summary="Classify videos.",
        lifespan=lifespan,
        docs_url=None,
        redirect_slashes=False,
        redoc_url=None,
    )
    problems.add_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    return app
