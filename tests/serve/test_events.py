"""Server-sent events."""

import asyncio

from mmaction_lite.serve import events
from mmaction_lite.serve.events import Event, stream_events


def texts(poll, **options) -> list[str]:
    async def read() -> list[str]:
        answer = stream_events(poll, **options)
        return [str(text) async for text in answer.body_iterator]

    return asyncio.run(asyncio.wait_for(read(), 10))


def test_events_end_with_the_last_one():
    found = [([Event("a", {"x": "line\nbreak"}, "7")], False), ([], False), ([Event("b", None)], True)]
    sent = texts(lambda: found.pop(0), is_closing=lambda: False, seconds=0.001)
    assert sent == [
        "retry: 1000\n\n",
        'id: 7\nevent: a\ndata: {"x": "line\\nbreak"}\n\n',
        "event: b\ndata: null\n\n",
    ]


def test_comments_keep_a_silent_stream_open(monkeypatch):
    monkeypatch.setattr(events, "ALIVE_SECONDS", 0.005)
    polls = iter(range(20))
    sent = texts(lambda: ([], next(polls) == 19), is_closing=lambda: False, seconds=0.002)
    assert ": alive\n\n" in sent


def test_a_stream_ends_with_the_server():
    closing = iter([False, True])
    assert len(texts(lambda: ([], False), is_closing=lambda: next(closing), seconds=0.001)) == 1
