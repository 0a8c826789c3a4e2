"""A cache of the test, a web server on this machine, and public weights on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmaction_lite.weights.catalogue import WeightsEntry
from tests.weights.public import publisher, use_cache
from tests.weights.server import Server, serve


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, with no proxy or mirror in the environment."""
    use_cache(tmp_path / "cache", monkeypatch)
    return tmp_path / "cache"


@pytest.fixture
def server(cache_dir: Path) -> Iterator[Server]:
    """A web server that has no files yet."""
    with serve() as state:
        yield state


@pytest.fixture
def publish(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., WeightsEntry]:
    """See `publisher`."""
    return publisher(server, monkeypatch)
