"""Metrics for Prometheus, and one log line per request: sizes, times and the outcome, no content."""

import logging
import time
import traceback
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmaction_lite.serve.guard import RESPONSE_HEADERS
from mmaction_lite.serve.problems import Problem, problem_response
from mmaction_lite.serve.uploads import Upload, stated_length

LOGGER = "mmaction_lite.serve"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
UNKNOWN_ROUTE = "other"


class Metrics:
    """The metrics of one server. Labels hold names of routes, stages and events, nothing of a request."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry, "namespace": "mmaction_lite"}
        self.requests = Counter("requests", "Answered requests.", ["method", "route", "status"], **named)
        self.request_seconds = Histogram(
            "request_seconds", "Duration of requests.", ["route"], buckets=SECONDS, **named
        )
        self.stage_seconds = Histogram(
            "stage_seconds", "Duration of the stages of a request.", ["stage"], buckets=SECONDS, **named
        )
        self.upload_bytes = Counter("upload_bytes", "Received bytes of videos.", **named)
        self.batch_videos = Histogram(
            "batch_videos", "Videos in a forward pass.", buckets=(1, 2, 4, 8, 16, 32), **named
        )
        self.restarts = Counter("decoder_restarts", "Replaced decoding processes.", ["event"], **named)
        self.in_flight = Gauge("requests_in_flight", "Accepted requests without an answer.", **named)
        self.model_bytes = Gauge("model_bytes", "Weights in memory.", **named)

    def observe_batch(self, size: int, seconds: float) -> None:
        """Count a forward pass."""
        self.batch_videos.observe(size)
        self.stage_seconds.labels("forward").observe(seconds)

    def observe_stages(self, seconds: Mapping[str, float], file: Upload | None) -> None:
        """Count the stages of a request, by name, and its upload."""
        for stage, duration in seconds.items():
            self.stage_seconds.labels(stage).observe(duration)
        self.upload_bytes.inc(0 if file is None else file.num_bytes)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class Observed:
    """ASGI middleware around all others: adds the security headers, counts and logs every answer.

    An unexpected exception becomes a problem without its text, which may name files of the server.

    Args:
        app: application that answers.
        metrics: counts the answers.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics
        self._log = logging.getLogger(LOGGER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in RESPONSE_HEADERS.items():
                    headers.setdefault(name, value)
                # The browser asks whether a script of the page has changed, so that no versions are mixed.
                is_page = not scope["path"].startswith("/v1/")
                headers.setdefault("cache-control", "no-cache" if is_page else "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception as error:
            self._log.error("unexpected %s", locate_error(error))
            if not status:
                problem = Problem("internal-error", f"unexpected {type(error).__name__}")
                await problem_response(problem)(scope, receive, send_observed)
        finally:
            self._count(scope, status, time.perf_counter() - started)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE) or UNKNOWN_ROUTE
        method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD") else "other"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        num_bytes = stated_length(Headers(scope=scope))
        self._log.info("%s %s %d %d bytes %.0f ms", method, route, status, num_bytes, 1000 * seconds)


def locate_error(error: BaseException) -> str:
    """Return the type of an exception and the function that raised it, without paths and without its text."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    where = f" in {last.name}, line {last.lineno}" if last is not None else ""
    return f"{type(error).__name__}{where}"
