"""Accept a limited number of requests at the same time, and none while the server shuts down."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmaction_lite.serve.problems import Problem, problem_response

LINGER_SECONDS, LINGER_BYTES = 5.0, 64 << 20
SMOOTHING = 0.1  # weight of the last request in the mean duration


class Admission:
    """Count the work that the server has accepted.

    Args:
        size: number of requests that are accepted at the same time.
    """

    def __init__(self, size: int):
        self._size = size
        self._mean_seconds = 1.0
        self._idle = asyncio.Event()
        self._idle.set()
        self.num_requests = self.num_held = 0
        self.is_draining = False

    @contextmanager
    def request(self) -> Iterator[None]:
        """Accept a request for the duration of the block.

        Raises:
            Problem: the server works on too many requests, or shuts down.
        """
        if self.is_draining:
            raise Problem("shutting-down", headers={"Retry-After": "5", "Connection": "close"})
        if self.num_requests >= self._size:
            seconds = max(1, math.ceil(self._mean_seconds))
            raise Problem("busy", f"{self._size} requests are accepted", {"Retry-After": str(seconds)})
        started = time.monotonic()
        self.num_requests += 1
        try:
            with self.hold():
                yield
        finally:
            self.num_requests -= 1
            self._mean_seconds += SMOOTHING * (time.monotonic() - started - self._mean_seconds)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the server from ending during the block; for accepted work, such as a job."""
        self.num_held += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.num_held -= 1
            if not self.num_held:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Accept no further requests, and wait until the accepted work is done, at most `seconds`."""
        self.is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()


class Admitted:
    """ASGI middleware that accepts POST requests by `Admission`; all others pass.

    Args:
        app: application that receives the accepted requests.
        admission: counts them.
    """

    def __init__(self, app: ASGIApp, admission: Admission):
        self._app, self._admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            with self._admission.request():
                await self._app(scope, receive, send)
        except Problem as problem:  # of the admission; those of routes are answered by their handlers
            await problem_response(problem)(scope, receive, send)


class Lingering:
    """ASGI middleware that reads the rest of a body whose request was answered early, within limits.

    A connection that is closed while the client sends is reset, and the client may not receive the answer.

    Args:
        app: application whose answers are completed.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_more = True
        has_received = False

        async def receive_body() -> Message:
            nonlocal has_more, has_received
            has_received = True
            message = await receive()
            has_more = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def send_answer(message: Message) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            # A client that expects 100 Continue has not sent its body before it is read.
            is_waiting = not has_received and (b"expect", b"100-continue") in scope["headers"]
            if is_last and has_more and scope["method"] != "GET" and not is_waiting:
                await send({**message, "more_body": True})
                await _discard(receive_body, lambda: has_more)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, receive_body, send_answer)


async def _discard(receive: Receive, has_more: Callable[[], bool]) -> None:
    num_bytes = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while has_more() and num_bytes < LINGER_BYTES:
                num_bytes += len((await receive()).get("body", b""))
