"""A server in this process, with a small network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")

import httpx

from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.serve.app import create_app
from mmaction_lite.serve.models import Models
from mmaction_lite.serve.settings import ServeSettings
from tests.exports import write_small_weights
from tests.serve.browsing import dataset_of, write_data, write_run
from tests.serve.running import running

ONE_WORKER = WorkerSettings(num_workers=1, hang_seconds=20.0)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network with two classes, up and down."""
    path = tmp_path_factory.mktemp("served") / "small.safetensors"
    write_small_weights(path)
    return path


@pytest.fixture(scope="session")
def client(weights: Path) -> Iterator[httpx.Client]:
    """A client of a server with default limits and one decoding process."""
    settings = ServeSettings(workers=ONE_WORKER, rate_per_minute=0)
    app = create_app(settings, Models([str(weights)], settings.memory_budget, "cpu"))
    with running(app) as client:
        yield client


@pytest.fixture
def clip(tiny: Path) -> Path:
    """A readable video of 16 frames, 64x48 pixels."""
    return tiny / "val" / "up" / "12.mp4"


@pytest.fixture(scope="session")
def browsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the data set `clips` and the run folder `mine` of `browser`."""
    folder = tmp_path_factory.mktemp("browsed")
    write_data(folder / "clips")
    write_run(folder / "mine", 3)
    return folder


@pytest.fixture(scope="session")
def browser(weights: Path, browsed: Path) -> Iterator[httpx.Client]:
    """A client of a server with a data set, a run folder, and tight limits."""
    settings = ServeSettings(
        workers=ONE_WORKER,
        rate_per_minute=0,
        allowed_urls=("*.example.org", "localhost", "127.0.0.1"),
        max_bytes=300_000,
        max_seconds=20.0,
        max_side=400,
        stall_seconds=0.3,
        upload_seconds=1.5,
    )
    models = Models([str(weights)], settings.memory_budget, "cpu")
    app = create_app(
        settings, models, dataset=dataset_of(browsed / "clips"), run=write_run(browsed / "mine", 3)
    )
    with running(app) as client:
        yield client
