"""A limited number of requests is accepted, and none while the server shuts down."""

import asyncio

import pytest

from mmaction_lite.serve.admission import Admission, Admitted, Lingering
from mmaction_lite.serve.problems import Problem


def test_further_requests_are_refused_with_a_time_to_wait():
    admission = Admission(1)
    with admission.request():
        with pytest.raises(Problem) as caught, admission.request():
            pass
        assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})
    with admission.request():
        pass


def test_draining_waits_for_accepted_work():
    admission = Admission(1)
    events = []

    async def work():
        with admission.request():
            await asyncio.sleep(0.05)
            events.append("done")

    async def drain():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        await admission.drain(10)
        events.append("drained")
        with pytest.raises(Problem, match="shutting down"), admission.request():
            pass
        await task

    asyncio.run(drain())
    assert events == ["done", "drained"]


def call(app, scope, chunks):
    """The status of an answer, and how many pieces of the body were left."""
    left = [{"type": "http.request", "body": b"x", "more_body": n < chunks - 1} for n in range(chunks)]
    statuses = []

    async def receive():
        return left.pop(0)

    async def send(message):
        statuses.append(message.get("status"))

    asyncio.run(app(scope, receive, send))
    return statuses[0], len(left)


SCOPE = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": []}


def test_the_rest_of_a_refused_body_is_read():
    admission = Admission(1)
    app = Admitted(Lingering, admission)  # pyright: ignore[reportArgumentType]  never called
    with admission.request():
        assert call(app, SCOPE, 3) == (429, 3)
        assert call(Lingering(app), SCOPE, 3) == (429, 0)
        expecting = SCOPE | {"headers": [(b"expect", b"100-continue")]}
        assert call(Lingering(app), expecting, 3) == (429, 3)
