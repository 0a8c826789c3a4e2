"""Run the application: bind the address, serve, and finish the accepted requests at SIGTERM."""

import asyncio
import logging
import socket
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmaction_lite.errors import UserError, describe
from mmaction_lite.serve.metrics import LOGGER
from mmaction_lite.serve.problems import Problem, problem_response
from mmaction_lite.serve.services import Services
from mmaction_lite.serve.settings import ServeSettings

HEADER_SECONDS = 20.0  # for the headers of a request
MOST_CONNECTIONS = 1000
POLL_SECONDS = 0.2
END_SECONDS = 5  # for connections that are open after the accepted requests are done


class TimedProtocol(H11Protocol):
    """HTTP/1.1 with a time limit for the headers of a request, and problem details for malformed ones."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the time limit of the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Receive data; the time limit ends with the headers."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time limit."""
        self._stop()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not valid HTTP with a problem, and close the connection."""
        answer = problem_response(Problem("bad-request", msg))
        headers = [*answer.raw_headers, (b"connection", b"close")]
        events = (
            h11.Response(status_code=answer.status_code, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        )
        with suppress(h11.LocalProtocolError):  # another answer has begun
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        is_waiting = self.conn.their_state is h11.IDLE
        if not is_waiting:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._expire)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """Server that finishes the accepted requests at the first SIGTERM or SIGINT, and ends at the second.

    Args:
        config: see uvicorn.
        drain_seconds: how long accepted requests may run.
    """

    def __init__(self, config: uvicorn.Config, drain_seconds: float):
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. The exit code stays 0, because uvicorn does not learn of the signal."""
        if not self.started or self._draining is not None:
            self.should_exit = self.force_exit = True
            return
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        services: Services = self.config.app.state.services  # pyright: ignore
        logging.getLogger(LOGGER).info("finishing the accepted requests")
        deadline = time.monotonic() + self._drain_seconds
        await services.admission.drain(self._drain_seconds)
        while services.jobs.num_unfinished and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        services.is_closing = True  # ends the streams of events
        self.should_exit = True


def bind(settings: ServeSettings) -> socket.socket:
    """Return a socket that listens on the address of the settings.

    Raises:
        UserError: the address is not available.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on {settings.host}:{settings.port} ({describe(error)}); expected a free port of "
            "an address of this machine. Choose another --port"
        ) from None


def serve(app: FastAPI, settings: ServeSettings, listening: socket.socket) -> None:
    """Serve an application until a signal ends it.

    Args:
        app: result of `create_app`.
        settings: the settings of `app`.
        listening: result of `bind`.

    Raises:
        UserError: the server cannot start.
    """
    log_to_standard_error()
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        h11_max_incomplete_event_size=settings.max_header_bytes,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=END_SECONDS,
    )
    server = DrainingServer(config, settings.drain_seconds)
    server.run([listening])
    if not server.started:
        raise getattr(app.state, "failure", None) or UserError("the server cannot start")


def log_to_standard_error() -> None:
    """Print the log lines of the server; those of its libraries may contain parts of a request."""
    for library in ("uvicorn", "python_multipart"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    log = logging.getLogger(LOGGER)
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
