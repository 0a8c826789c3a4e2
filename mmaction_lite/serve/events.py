"""Server-sent events (HTML standard, section 9.2)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from fastapi.responses import StreamingResponse

POLL_SECONDS = 0.1
ALIVE_SECONDS = 15.0  # between two comments, which keep the connection open


class Event(NamedTuple):
    """An event.

    Args:
        name: type of the event.
        data: values of JSON.
        id: identifier, from which a client resumes after an interruption; empty: none.
    """

    name: str
    data: Any
    id: str = ""

    def to_text(self) -> str:
        """Return the event as the stream contains it."""
        number = f"id: {self.id}\n" if self.id else ""
        return f"{number}event: {self.name}\ndata: {json.dumps(self.data)}\n\n"


Poll = Callable[[], tuple[list[Event], bool]]
"""Returns the events since the last call, and whether they are the last ones."""


def stream_events(
    poll: Poll, *, is_closing: Callable[[], bool], seconds: float = POLL_SECONDS
) -> StreamingResponse:
    """Return an answer that sends events as they arise.

    Args:
        poll: called regularly in a thread.
        is_closing: whether the server shuts down, which ends the stream.
        seconds: pause between two calls.
    """
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        _texts(poll, is_closing, seconds), media_type="text/event-stream", headers=headers
    )


async def _texts(poll: Poll, is_closing: Callable[[], bool], seconds: float) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    sent_at = time.monotonic()
    while not is_closing():
        events, is_last = await asyncio.to_thread(poll)
        for event in events:
            yield event.to_text()
        if is_last:
            return
        if events:
            sent_at = time.monotonic()
        elif time.monotonic() - sent_at > ALIVE_SECONDS:
            yield ": alive\n\n"
            sent_at = time.monotonic()
        await asyncio.sleep(seconds)
