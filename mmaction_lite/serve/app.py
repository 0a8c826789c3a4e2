"""The application: one object that uvicorn, Ray Serve or any other ASGI server runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from mmaction_lite import __version__
from mmaction_lite.errors import UserError
from mmaction_lite.errors import describe as explain
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
from mmaction_lite.serve.addresses import parse_allowed
from mmaction_lite.serve.admission import Admission, Admitted, Lingering
from mmaction_lite.serve.dataset import Dataset
from mmaction_lite.serve.description import describe
from mmaction_lite.serve.guard import Guard
from mmaction_lite.serve.metrics import Metrics, Observed
from mmaction_lite.serve.models import Models
from mmaction_lite.serve.run_curves import RunCurves
from mmaction_lite.serve.services import Services
from mmaction_lite.serve.settings import ServeSettings

PAGE, REFERENCE = (Path(__file__).parent / name for name in ("page", "reference"))
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

    Raises:
        UserError: an allowed address is malformed.
    """
    for address in settings.allowed_urls:
        parse_allowed(address)
    admission, metrics = Admission(settings.queue_size), Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = app.state.services = Services(
            settings, models, dataset, run, admission=admission, metrics=metrics
        )
        try:
            await services.start()
            yield
        except Exception as error:
            if not isinstance(error, UserError):
                error = UserError(f"the server cannot start ({explain(error)})")
            app.state.failure = error
            raise
        finally:
            await services.close()

    app = FastAPI(
        title="mmaction-lite",
        version=__version__,
        summary="Classify videos under the test protocol of a model.",
        lifespan=lifespan,
        docs_url=None,
        redirect_slashes=False,
        redoc_url=None,
    )
    problems.add_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = partial(describe, app)
    app.add_route("/docs", _open_docs, include_in_schema=False)
    app.mount("/docs", StaticFiles(directory=REFERENCE, html=True), name="docs")
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    _add_middleware(app, settings, admission, metrics)
    return app


async def _open_docs(request: Request) -> Response:
    """Redirect to the folder of the reference; the relative address holds below a path prefix, too."""
    return RedirectResponse("docs/")


def _add_middleware(app: FastAPI, settings: ServeSettings, admission: Admission, metrics: Metrics) -> None:
    """Add what every request passes, the innermost first."""
    app.add_middleware(Admitted, admission=admission)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Lingering)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Location", "Retry-After"],
        )
    app.add_middleware(Observed, metrics=metrics)
