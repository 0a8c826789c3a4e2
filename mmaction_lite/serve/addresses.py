"""Download videos by address, from hosts that the operator allows, and never from a private network.

A client that names an address makes the server open a connection. Without checks, the client reaches services
of the server's own network (server-side request forgery). Therefore:

- only addresses of the list of the operator are fetched, also after a redirect;
- the host name is resolved once, every address of the answer is checked, and the connection is opened to a
  checked address, so that a second answer of the name server has no effect (DNS rebinding);
- proxies of the environment are not used, because they resolve names themselves;
- size and time are limited, and compressed answers are refused.
"""

import re
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from types import TracebackType
from typing import BinaryIO, NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from mmaction_lite.errors import UserError, describe, printable
from mmaction_lite.serve.problems import Problem

PORTS = {"http": 80, "https": 443}
LONGEST_ADDRESS = 2000  # characters
MOST_REDIRECTS = 3
CHUNK_BYTES = 64 << 10
REDIRECTS = {301, 302, 303, 307, 308}
NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
GLOBAL_UNICAST = IPv6Network("2000::/3")  # RFC 4291
HOST = re.compile(r"(\*\.)?(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class FetchLimits(NamedTuple):
    """Limits of one download.

    Args:
        max_bytes: size of the file.
        seconds: time from the start of the download to its end, redirects included.
    """

    max_bytes: int
    seconds: float


class AllowedAddress(NamedTuple):
    """An entry of the list of allowed addresses.

    Args:
        scheme: "http" or "https"; empty: both.
        host: host name in lower case; `*.example.org` stands for all hosts below example.org.
        port: port; None: the default port of the scheme.
        path: the path itself and everything below it; empty: all paths.
    """

    scheme: str
    host: str
    port: int | None
    path: str


def parse_allowed(text: str) -> AllowedAddress:
    """Parse an entry of the list: `HOST`, `*.DOMAIN`, `HOST:PORT`, or `https://HOST/PATH`.

    Raises:
        UserError: it is none of these.
    """
    scheme, separator, rest = text.strip().rpartition("://")
    expected = "expected HOST, *.DOMAIN, HOST:PORT or https://HOST/PATH"
    try:
        parts = urlsplit(f"//{rest}")
        host, port = (parts.hostname or "").lower().rstrip("."), parts.port
    except ValueError:
        raise UserError(f"--allow-url {printable(text, 200)}: is not an address; {expected}") from None
    is_name = HOST.fullmatch(host) is not None or is_address(host)
    is_plain = not (parts.query or parts.fragment or parts.username is not None)
    if not is_name or not is_plain or (separator and scheme not in PORTS):
        raise UserError(f"--allow-url {printable(text, 200)}: is not an address; {expected}")
    return AllowedAddress(scheme, host, port, parts.path.rstrip("/"))


def is_allowed(address: str, allowed: Sequence[AllowedAddress]) -> bool:
    """Whether an address is one of the allowed ones. Addresses with a login or with dot segments are not."""
    try:
        parts = _split(address)
    except Problem:
        return False
    return any(_matches(parts, entry) for entry in allowed)


def fetch(
    address: str,
    allowed: Sequence[AllowedAddress],
    limits: FetchLimits,
    file: BinaryIO,
) -> int:
    """Download a file to `file`, and return its size in bytes.

    Args:
        address: the address, http or https.
        allowed: addresses that may be fetched; redirects must lead to one of them, too.
        limits: limits of size and time.
        file: opened in binary mode.

    Raises:
        Problem: the address is not allowed, belongs to a private network, or cannot be fetched within
            the limits.
    """
    deadline = time.monotonic() + limits.seconds
    for _ in range(MOST_REDIRECTS + 1):
        parts = _split(address)
        if not any(_matches(parts, entry) for entry in allowed):
            raise Problem("url-refused", f"{_shown(address)}: is not on the list of allowed addresses")
        with _Connection(parts, deadline) as response:
            target = response.getheader("location")
            if response.status in REDIRECTS and target:
                address = urljoin(address, target)
                continue
            return _receive(response, _shown(address), limits.max_bytes, file)
    raise Problem("fetch-failed", f"{_shown(address)}: redirects more than {MOST_REDIRECTS} times")


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also the IPv4 address that an IPv6 one embeds.

    Private, loopback, link-local, shared, reserved, documentation and multicast addresses do not.
    """
    try:
        number = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(number, IPv6Address):
        embedded = [number.ipv4_mapped, number.sixtofour, *(number.teredo or ())]
        embedded += [IPv4Address(int(number) & 0xFFFFFFFF)] if any(number in net for net in NAT64) else []
        inner = [each for each in embedded if each is not None]
        if inner:
            return all(map(_is_global, inner))
        return number in GLOBAL_UNICAST and _is_global(number)
    return _is_global(number)


def _is_global(number: IPv4Address | IPv6Address) -> bool:
    is_special = number.is_multicast or number.is_reserved or number.is_loopback or number.is_unspecified
    return number.is_global and not is_special


def is_address(host: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _split(address: str) -> SplitResult:
    """Parse an address.

    Raises:
        Problem: it is no address of a file, or has a form that programs read differently.
    """
    problem = Problem("url-refused", f"{_shown(address)}: is not an address; expected https://HOST/PATH")
    if len(address) > LONGEST_ADDRESS or not address.isascii() or not address.isprintable():
        raise problem
    if " " in address or "\\" in address:
        raise problem
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018  raises if it is no number
    except ValueError:
        raise problem from None
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        raise problem
    # Some servers decode %2F before they split the path, and drop what follows a semicolon.
    segments = re.split(r"[/\\]", unquote(parts.path))
    if any(segment.partition(";")[0] in (".", "..") for segment in segments):
        raise problem
    return parts


def _matches(parts: SplitResult, entry: AllowedAddress) -> bool:
    host = (parts.hostname or "").lower().rstrip(".")
    is_host = host.endswith(entry.host[1:]) if entry.host.startswith("*.") else host == entry.host
    default = PORTS[parts.scheme]
    is_port = (parts.port or default) == (entry.port or default)
    is_path = not entry.path or f"{parts.path}/".startswith(f"{entry.path}/")
    return is_host and is_port and is_path and entry.scheme in ("", parts.scheme)


def _shown(address: str) -> str:
    """Return an address for messages: without its query, which may hold a secret, and without a login."""
    return printable(re.sub(r"//[^/]*@", "//", address.partition("?")[0].partition("#")[0]), 200)


class _Connection:
    """A request, whose connection is closed at the end and cut at the deadline. A context manager.

    Args:
        parts: the address.
        deadline: time of `time.monotonic`.
    """

    def __init__(self, parts: SplitResult, deadline: float) -> None:
        self._parts, self._deadline = parts, deadline
        self._name = _shown(parts.geturl())
        self._socket: socket.socket | None = None
        self._response: HTTPResponse | None = None
        self._is_late = False
        self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._cut)
        self._timer.daemon = True

    def __enter__(self) -> HTTPResponse:
        try:
            return self._request()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        for opened in (self._response, self._socket):
            if opened is not None:
                opened.close()
        # A connection that was cut may look like a complete answer of unknown length.
        if self._is_late or isinstance(error, TimeoutError):
            raise Problem("fetch-failed", f"{self._name}: took too long to download") from None
        if isinstance(error, OSError | HTTPException | ValueError):
            raise Problem(
                "fetch-failed", f"{self._name}: cannot be fetched ({describe(error, 100)})"
            ) from None

    def _request(self) -> HTTPResponse:
        scheme, host = self._parts.scheme, self._parts.hostname or ""
        port = self._parts.port or PORTS[scheme]
        raw = _connect(host, port, self._deadline, self._name)
        self._socket = raw
        self._timer.start()
        if scheme == "https":
            context = ssl.create_default_context()
            self._socket = context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
            self._socket.do_handshake()
        connection = HTTPConnection(host, port)
        connection.sock = self._socket
        path = f"{self._parts.path or '/'}{f'?{self._parts.query}' if self._parts.query else ''}"
        name = f"[{host}]" if ":" in host else host
        shown = name if port == PORTS[scheme] else f"{name}:{port}"
        headers = {"Host": shown, "Accept-Encoding": "identity", "Connection": "close"}
        connection.request("GET", path, headers=headers)
        self._response = connection.getresponse()
        return self._response

    def _cut(self) -> None:
        self._is_late = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _connect(host: str, port: int, deadline: float, name: str) -> socket.socket:
    """Connect to a public address of a host.

    Raises:
        Problem: the host has no address, or one that is not public.
        OSError: no address can be connected.
    """
    try:
        found = list(dict.fromkeys(_resolve(host, port)))
    except (OSError, UnicodeError):
        raise Problem("fetch-failed", f"{name}: the host is not known") from None
    if not found or not all(map(is_public, found)):
        raise Problem("url-refused", f"{name}: the host is not on the public internet")
    failure: OSError = TimeoutError()
    for address in found:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            # The text of an IP address: the system resolves no name again.
            connected = socket.create_connection((address, port), timeout=left)
        except OSError as error:
            failure = error
            continue
        return connected
    raise failure


def _receive(response: HTTPResponse, name: str, max_bytes: int, file: BinaryIO) -> int:
    """Copy the body of an answer to a file, and return its size in bytes.

    Raises:
        Problem: the answer is no file, is compressed, or is too large.
    """
    if response.status != 200:
        raise Problem(
            "fetch-failed", f"{name}: the server answers with status {response.status}; expected 200"
        )
    if response.getheader("content-encoding", "identity").lower() != "identity":
        raise Problem("fetch-failed", f"{name}: the answer is compressed; expected the file itself")
    too_large = Problem(
        "too-large", f"{name}: is larger than {max_bytes / 1e6:g} MB, the limit of this server"
    )
    stated = response.length
    if stated is not None and stated > max_bytes:
        raise too_large
    size = 0
    while chunk := response.read1(CHUNK_BYTES):
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        file.write(chunk)
    if stated is not None and size < stated:
        raise Problem("fetch-failed", f"{name}: the connection ended after {size} of {stated} bytes")
    return size
