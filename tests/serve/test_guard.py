"""Requests of other sites, without the token, or too many, do not reach a route."""

import asyncio

import httpx
import pytest
from starlette.datastructures import Headers

from mmaction_lite.serve.app import create_app
from mmaction_lite.serve.guard import (
    RESPONSE_HEADERS,
    RateLimit,
    check_host,
    check_origin,
    check_token,
    client_of,
    is_protected,
)
from mmaction_lite.serve.models import Models
from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.settings import ServeSettings
from tests.serve.conftest import ONE_WORKER

ACCEPTED = ServeSettings(hosts=("my.example",)).accepted_hosts


def refusal(check, *arguments):
    """The kind of the problem that a check raises, or an empty string."""
    try:
        check(*arguments)
    except Problem as problem:
        return problem.kind
    return ""


@pytest.mark.parametrize(
    ("host", "is_accepted"),
    [
        *((host, True) for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "MY.example:1", "10.0.0.3")),
        *((host, False) for host in ("evil.example", "localhost.evil.example", "", "a@localhost", "[::1")),
    ],
)
def test_the_host_header_names_this_server(host, is_accepted):
    assert refusal(check_host, Headers({"host": host}), ACCEPTED) == ("" if is_accepted else "bad-host")


def test_pages_of_other_sites_are_refused():
    def kind(**headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return refusal(check_origin, Headers({"host": "localhost:8000"} | named), ("https://ours.example",))

    assert kind() == kind(origin="http://localhost:8000") == kind(origin="https://ours.example") == ""
    assert kind(origin="http://localhost:9000") == kind(origin="null") == "cross-site"
    assert kind(origin="http://[") == "cross-site"
    assert kind(sec_fetch_site="cross-site") == "cross-site"
    assert kind(sec_fetch_site="cross-site", sec_fetch_mode="navigate") == ""


def test_the_token_is_compared_whole():
    def kind(value: str, token: str | None = "s" * 16):
        return refusal(check_token, Headers({"authorization": value}), token)

    assert kind("Bearer " + "s" * 16) == kind("bearer " + "s" * 16) == kind("", None) == ""
    wrong = ("", "Bearer " + "s" * 15, "Basic " + "s" * 16, "Bearer ü")
    assert {kind(value) for value in wrong} == {"unauthorized"}


def test_the_interface_is_protected_below_a_path_prefix_too():
    def found(path, prefix=""):
        return is_protected({"path": path, "root_path": prefix})

    assert found("/v1/models")
    assert found("/metrics")
    assert found("/videos/v1/models", "/videos")
    assert found("/v1/models", "/videos")
    assert not found("/index.html")
    assert not found("/videos/healthz", "/videos")


def test_the_rate_of_each_client_is_limited():
    now = [0.0]
    limit = RateLimit(60, lambda: now[0])
    assert [refusal(limit.check, "a") for _ in range(8)] == [""] * 6 + ["rate-limited"] * 2
    assert refusal(limit.check, "b") == ""
    now[0] = 1.0
    assert [refusal(limit.check, "a") for _ in range(2)] == ["", "rate-limited"]
    assert client_of({"client": ("2001:db8::1", 1)}) == client_of({"client": ("2001:db8::2", 1)})
    assert client_of({}) == "unknown"


def ask(app, *requests):
    """The answers to requests (method, path, headers)."""

    async def call():
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            return [await client.request(method, path, headers=headers) for method, path, headers in requests]

    return asyncio.run(call())


def test_every_answer_has_the_security_headers_and_no_cors(weights):
    settings = ServeSettings(token="t" * 20, workers=ONE_WORKER)
    app = create_app(settings, Models([str(weights)], 1 << 30, "cpu"))
    expected = {
        ("GET", "/v1/models"): 401,
        ("GET", "/metrics"): 401,
        ("POST", "/v1/predict"): 401,
        ("GET", "/healthz"): 200,
        ("GET", "/docs/"): 200,
        ("GET", "/docs/../app.py"): 404,
        ("GET", "/docs/%2e%2e/app.py"): 404,
    }
    allowed = ("GET", "/v1/models", {"Authorization": "Bearer " + "t" * 20})
    *answers, last = ask(app, *((*request, {}) for request in expected), allowed)
    assert [answer.status_code for answer in answers] == list(expected.values())
    for answer in answers:
        assert {name: answer.headers[name] for name in RESPONSE_HEADERS} == RESPONSE_HEADERS
        assert "access-control-allow-origin" not in answer.headers
    assert last.json()["limits"]["needs_token"] is True


def test_cors_is_allowed_where_it_is_asked_for(weights):
    settings = ServeSettings(origins=("https://ours.example",), workers=ONE_WORKER)
    app = create_app(settings, Models([str(weights)], 1 << 30, "cpu"))
    origins = [("GET", "/healthz", {"Origin": f"https://{name}.example"}) for name in ("ours", "other")]
    ours, other = ask(app, *origins)
    assert ours.headers["access-control-allow-origin"] == "https://ours.example"
    assert other.status_code == 403


def test_the_number_of_ranges_is_limited(client):
    for count, status in ((16, 206), (17, 400)):
        ranges = ",".join(f"{2 * number}-{2 * number}" for number in range(count))
        answer = client.get("/v1/examples/move_left", headers={"Range": f"bytes={ranges}"})
        assert answer.status_code == status
