"""Mutated requests and videos: every answer is a problem or a right answer, and the server stays alive.

`MMACTION_LITE_MUTANTS=2000 pytest tests/serve/test_fuzz.py` takes some minutes.
"""

import json
import os
import random
import socket
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from mmaction_lite.serve.problems import KINDS, MEDIA_TYPE
from tests.data.mutants import mutant, write_bases

COUNT = int(os.environ.get("MMACTION_LITE_MUTANTS", "60"))
HANG_SECONDS = 60.0
ROUTES = ("/v1/predict", "/v1/predict", "/v1/predict", "/v1/explain", "/v1/timeline")
CLIPS = "/v1/data/clips"
TYPES = ("application/json", "text/event-stream", "video/mp4", "text/csv", "text/html")
WORDS = (
    b"\0",
    b"\r\n",
    b"\r\n\r\n",
    b"%00",
    b"../",
    b"\xff\xfe",
    b"-1",
    b"9" * 30,
    b"nan",
    b"{}",
    b"--x--",
    b'"',
)


def form(route: str, video: bytes, **fields: str) -> bytes:
    """A whole request with a form."""
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts.append(('name="file"; filename="clip.mp4"', video))
    body = b"".join(
        b"--x\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (name.encode(), value)
        for name, value in parts
    )
    body += b"--x--\r\n"
    head = f"POST {route} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return head.encode() + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode()


def requests_of(video: bytes, clip: str) -> list[bytes]:
    """Requests of all routes, before they are mutated."""
    body = b'{"labels": ["up"]}'
    label = f"POST {CLIPS}/{clip}/label HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    paths = (
        "/v1/models",
        "/v1/models/small/classes",
        "/healthz",
        "/v1/examples",
        "/v1/examples/grow",
        "/v1/run",
    )
    queries = (f"{CLIPS}?class=up&wrong=true&sort=worst&page=1", f"{CLIPS}/{clip}", f"{CLIPS}/{clip}/video")
    return [
        form("/v1/predict", video, top="3", thumbnails="true", model="small"),
        form("/v1/timeline", video, stride="0.5", window="0.5", background="up"),
        form("/v1/explain", video, **{"class": "up"}),
        label.encode() + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body,
        *map(get, (*paths, *queries, "/v1/data/summary", "/v1/jobs/abc", "/v1/jobs/abc/result.csv")),
    ]


def mutated(request: bytes, rng: random.Random) -> bytes:
    """Change a few places of a request, most of them in its head."""
    content = bytearray(request)
    head = request.index(b"\r\n\r\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(min(len(content), head + 200) if rng.random() < 0.8 else len(content))
        kind = rng.choice(("bit", "insert", "remove", "repeat", "word", "cut"))
        if kind == "bit":
            content[place] ^= 1 << rng.randrange(8)
        elif kind == "insert":
            content[place:place] = rng.randbytes(rng.randrange(1, 8))
        elif kind == "remove":
            del content[place : place + rng.randrange(1, 20)]
        elif kind == "repeat":
            content[place:place] = content[place : place + rng.randrange(1, 60)]
        elif kind == "word":
            content[place:place] = rng.choice(WORDS)
        elif rng.random() < 0.3:
            content = content[: max(1, place)]
        content = content or bytearray(b"G")
    return bytes(content)


def exchange(port: int, request: bytes) -> bytes:
    """Send a request; return the answer, also if the server keeps the connection open.

    Of a request whose head is incomplete, the server waits for the rest.
    """
    received = b""
    is_complete = b"\r\n\r\n" in request
    with socket.create_connection(
        ("127.0.0.1", port), timeout=HANG_SECONDS if is_complete else 0.2
    ) as connection:
        try:
            connection.sendall(request)
            while not is_whole(received) and (chunk := connection.recv(65536)):
                received += chunk
        except ConnectionError:  # the server closes it after an error
            pass
        except TimeoutError:
            if is_complete:
                raise
    return received


def is_whole(answer: bytes) -> bool:
    """Whether the body of an answer has the length that its head states."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    _, found, length = head.lower().partition(b"content-length: ")
    return bool(separator and found) and len(body) >= int(length.split(b"\r\n")[0])


def check(answer: bytes) -> str:
    """Return the outcome of a request: a status, the kind of a problem, or "closed".

    Raises:
        AssertionError: it is neither a problem nor a right answer.
    """
    if not answer:
        return "closed"
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), answer[:100]
    status = int(head.split()[1])
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    kind = headers.get(b"content-type", b"").decode()
    body = body[: int(headers.get(b"content-length", len(body)))]  # an answer to a second request may follow
    assert b"/tmp/" not in head + (b"" if kind.startswith("video") else body)
    if kind.startswith("text/plain") and status == 400:  # not HTTP; the server has no request to answer
        assert b"Invalid HTTP request" in body
        return "no HTTP"
    if status >= 400:
        assert kind == MEDIA_TYPE, (status, kind, body[:200])
        if headers.get(b"content-length") == b"0" or not body:  # HEAD
            return f"{status}"
        problem = json.loads(body)
        name = problem["type"].removeprefix("/problems/")
        assert KINDS[name].status == problem["status"] == status
        assert name != "internal-error", problem
        return name
    assert status in (200, 202, 206, 304), answer[:200]
    assert kind.startswith(TYPES) or not body, kind
    if kind == "application/json" and body:
        assert isinstance(json.loads(body), dict)
    return f"{status}"


def fuzz(client: httpx.Client, bases: dict[str, bytes], clip: str, count: int) -> Counter[str]:
    """Send mutated requests and videos in turn; return how often each outcome occurred."""
    port = client.base_url.port
    assert port is not None
    requests = requests_of(next(iter(bases.values())), clip)
    outcomes: Counter[str] = Counter()
    for number in range(count):
        rng = random.Random(number)
        if number % 2:
            request = mutated(rng.choice(requests), rng)
        else:
            request = form(rng.choice(ROUTES), mutant(number, bases)[1])
        start = time.monotonic()
        try:
            outcomes[check(exchange(port, request))] += 1
        except (AssertionError, TimeoutError, ValueError) as error:
            raise AssertionError(f"mutant {number}: {error}; {request[:300]!r}") from error
        assert time.monotonic() - start < HANG_SECONDS
    return outcomes


@pytest.mark.slow
def test_every_answer_is_a_problem_or_right(browser, clip, tmp_path):
    video = clip.read_bytes()
    bases = {"clip.mp4": video} | (write_bases(tmp_path) if COUNT > 500 else {})
    known = browser.get(CLIPS).json()["clips"][0]
    expected = browser.post("/v1/predict", files={"file": video}).json()["predictions"]
    outcomes = fuzz(browser, bases, known["id"], COUNT)
    print(dict(outcomes.most_common()))
    assert sum(outcomes.values()) == COUNT
    assert browser.post("/v1/predict", files={"file": video}).json()["predictions"] == expected
    browser.post(f"{CLIPS}/{known['id']}/label", json={"labels": None})


def test_answers_are_judged():
    good = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"a": 1}'
    assert (check(good), check(b"")) == ("200", "closed")
    for bad in (
        good.replace(b"}", b""),
        good.replace(b"200", b"500"),
        good.replace(b"application/json", b"application/x-sh"),
        good.replace(b"1}", b'"/tmp/x"}'),
    ):
        with pytest.raises((AssertionError, ValueError)):
            check(bad)


def test_mutated_requests_differ(clip: Path):
    requests = requests_of(clip.read_bytes(), "abc")
    for number, request in enumerate(requests * 3):
        assert mutated(request, random.Random(number)) == mutated(request, random.Random(number))
