"""Run an application on a free port of this machine, in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from mmaction_lite.serve.server import TimedProtocol

START_SECONDS = 60.0


@contextmanager
def running(app: FastAPI) -> Iterator[httpx.Client]:
    """Yield a client of the running application."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=0, http=TimedProtocol, log_config=None, lifespan="on", timeout_graceful_shutdown=5
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
