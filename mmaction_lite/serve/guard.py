"""Refuse requests that must not reach a route: of other sites, without the token, or too many."""

import hmac
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mmaction_lite.serve.addresses import is_address
from mmaction_lite.serve.problems import Problem, problem_response
from mmaction_lite.serve.settings import ServeSettings

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")  # name and port
MOST_CLIENTS = 10_000  # whose rate is known at the same time
MOST_RANGES = 16  # of a file
PROTECTED = ("/v1/", "/metrics")
# The page may use the camera; it loads nothing from other hosts and runs no inline scripts.
RESPONSE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
}


class Guard:
    """ASGI middleware that answers forbidden requests with a problem.

    Checks, in this order: the size of the headers, the number of ranges, the Host header (DNS rebinding), the
    origin of requests of browsers, the token, and the rate of POST requests of a client.

    Args:
        app: application that receives the permitted requests.
        settings: settings of the server.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings):
        self._app, self._settings = app, settings
        self._rate = RateLimit(settings.rate_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except Problem as problem:
                await problem_response(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        num_bytes = len(scope.get("query_string", b"")) + len(scope.get("raw_path") or b"")
        num_bytes += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if num_bytes > self._settings.max_header_bytes:
            raise Problem("headers-too-large", f"more than {self._settings.max_header_bytes} bytes")
        if headers.get("range", "").count(",") >= MOST_RANGES:  # merging them takes quadratic time
            raise Problem("bad-request", f"the Range header has more than {MOST_RANGES} ranges")
        if "\0" in scope["path"]:  # no file has such a name
            raise Problem("not-found")
        check_host(headers, self._settings.accepted_hosts)
        check_origin(headers, self._settings.origins)
        if is_protected(scope):
            check_token(headers, self._settings.token)
        if scope["method"] == "POST":
            self._rate.check(client_of(scope))


def is_protected(scope: Scope) -> bool:
    """Whether a request needs the token. Another server may serve the application below a path prefix."""
    path = scope["path"]
    return path.startswith(PROTECTED) or path.removeprefix(scope.get("root_path", "")).startswith(PROTECTED)


def check_host(headers: Headers, accepted: tuple[str, ...]) -> None:
    """Check that the Host header names this server.

    A page of another site can let its own DNS name point to this machine. Its requests then hold this name.
    An IP address in the header is safe: the browser connected to this address.

    Raises:
        Problem: it is missing or names another server.
    """
    values = headers.getlist("host")
    found = HOST.fullmatch(values[0].lower()) if len(values) == 1 else None
    name = found[1] if found else ""
    if name not in accepted and not is_address(name.strip("[]")):
        raise Problem("bad-host", "the Host header names another server")


def check_origin(headers: Headers, allowed: tuple[str, ...]) -> None:
    """Check that a request of a browser comes from the page of this server or from an allowed site.

    Raises:
        Problem: it comes from another site.
    """
    origin = headers.get("origin")
    if origin in allowed:
        return
    try:
        is_own = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:  # no address
        is_own = False
    if not is_own or headers.get("sec-fetch-site") == "cross-site":
        # A link on another site may open the page itself, but not call the interface.
        is_navigation = headers.get("sec-fetch-mode") == "navigate" and origin is None
        if not is_navigation:
            raise Problem("cross-site", "the request comes from a page of another site")


def check_token(headers: Headers, token: str | None) -> None:
    """Check the token of a request in constant time.

    Raises:
        Problem: it is missing or wrong.
    """
    if token is None:
        return
    scheme, _, given = headers.get("authorization", "").partition(" ")
    is_right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    if scheme.lower() != "bearer" or not is_right:
        raise Problem("unauthorized", headers={"WWW-Authenticate": "Bearer"})


def client_of(scope: Scope) -> str:
    """Return the address of a client; of IPv6 the network of 64 bits, which one client usually has."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


class RateLimit:
    """Limit the requests of every client by a token bucket, which holds those of six seconds, at least 5.

    Args:
        per_minute: requests of one client in a minute, on average; 0: no limit.
        clock: returns the time in seconds.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic):
        self._per_second, self._clock = per_minute / 60, clock
        self._capacity = max(5.0, per_minute / 10)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Count a request.

        Raises:
            Problem: the client sends too many requests.
        """
        if not self._per_second:
            return
        now = self._clock()
        left, since = self._buckets.pop(client, (self._capacity, now))
        left = min(self._capacity, left + (now - since) * self._per_second)
        is_allowed = left >= 1
        self._buckets[client] = (left - is_allowed, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if not is_allowed:
            seconds = int((1 - left) / self._per_second) + 1
            detail = f"more than {60 * self._per_second:g} requests a minute"
            raise Problem("rate-limited", detail, {"Retry-After": str(seconds)})
