"""Downloads by address: only allowed hosts, never a private network, within the limits."""

import io
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.serve import addresses
from mmaction_lite.serve.addresses import (
    AllowedAddress,
    FetchLimits,
    fetch,
    is_allowed,
    is_public,
    parse_allowed,
)
from mmaction_lite.serve.problems import Problem

LIMITS = FetchLimits(max_bytes=1000, seconds=5.0)


class Server(BaseHTTPRequestHandler):
    """Answers by the path of the request."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        if path == "/drip":  # the header never ends
            for _ in range(100):
                self.wfile.write(b"H")
                time.sleep(0.05)
        if path == "/missing":
            self.send_error(404)
            return
        body = b"x" * (5000 if path == "/large" else 100)
        self.send_response(200)
        if path == "/zipped":
            self.send_header("Content-Encoding", "gzip")
        if path not in ("/endless", "/large"):
            self.send_header("Content-Length", str(200 if path == "/short" else len(body)))
        self.end_headers()
        self.wfile.write(body)
        if path == "/endless":
            for _ in range(100):
                time.sleep(0.05)
                self.wfile.write(b"x")

    def log_message(self, format: str, *args: object) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    """Prints nothing about clients that close the connection."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = QuietServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count 127.0.0.1 as public, and resolve every name of example.org to it."""
    public = is_public
    monkeypatch.setattr(addresses, "is_public", lambda ip: ip == "127.0.0.1" or public(ip))
    monkeypatch.setattr(addresses, "_resolve", lambda host, port: ["127.0.0.1"])


def download(address: str, *allowed: str, limits: FetchLimits = LIMITS) -> bytes:
    file = io.BytesIO()
    size = fetch(address, [parse_allowed(text) for text in allowed], limits, file)
    assert size == len(file.getvalue())
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org", AllowedAddress("", "example.org", None, "")),
        ("*.Example.org", AllowedAddress("", "*.example.org", None, "")),
        ("example.org:8080", AllowedAddress("", "example.org", 8080, "")),
        ("https://example.org/clips/", AllowedAddress("https", "example.org", None, "/clips")),
    ],
)
def test_entries_of_the_list(text, expected):
    assert parse_allowed(text) == expected


@pytest.mark.parametrize(
    "text", ["", "*", "ftp://example.org", "a@example.org", "a b", "example.org:x", "https://", "a.org/?q=1"]
)
def test_wrong_entries_of_the_list(text):
    with pytest.raises(UserError, match="expected HOST"):
        parse_allowed(text)


@pytest.mark.parametrize(
    ("address", "entry", "expected"),
    [
        ("https://example.org/a.mp4", "example.org", True),
        ("HTTPS://EXAMPLE.ORG./a.mp4", "example.org", True),
        ("https://evil-example.org/a.mp4", "example.org", False),
        ("https://example.org.evil.net/a", "example.org", False),
        ("https://cdn.example.org/a", "*.example.org", True),
        ("https://example.org/a", "*.example.org", False),
        ("https://evilexample.org/a", "*.example.org", False),
        ("http://example.org/a", "https://example.org", False),
        ("https://example.org:8443/a", "example.org", False),
        ("https://example.org:8443/a", "example.org:8443", True),
        ("https://example.org/clips/a", "https://example.org/clips", True),
        ("https://example.org/clips-private/a", "https://example.org/clips", False),
        ("https://example.org/clips/../secret", "https://example.org/clips", False),
        ("https://example.org/clips/%2e%2e/secret", "https://example.org/clips", False),
        ("https://example.org/clips/..%2fsecret", "https://example.org/clips", False),
        ("https://example.org/clips/..%5Csecret", "https://example.org/clips", False),
        ("https://example.org/clips/..;/secret", "https://example.org/clips", False),
        ("https://user@example.org/a", "example.org", False),
        ("https://example.org@evil.net/a", "example.org", False),
        ("https://evil.net\\@example.org/a", "example.org", False),
        ("https://example.org/a\r\nHost: evil", "example.org", False),
        ("file:///etc/passwd", "example.org", False),
        ("gopher://example.org/a", "example.org", False),
        ("https://[::1/a", "example.org", False),
        ("//example.org/a", "example.org", False),
        (f"https://example.org/{'a' * 3000}", "example.org", False),
    ],
)
def test_addresses_of_the_list(address, entry, expected):
    assert is_allowed(address, [parse_allowed(entry)]) is expected


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "fec0::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "2002:7f00:1::", "64:ff9b::7f00:1"),
        *("::127.0.0.1", "64:ff9b:1::a00:1", "localhost", "", "1.2.3", "0x7f.1"),
    ],
)
def test_addresses_of_private_networks(address):
    assert not is_public(address)


@pytest.mark.usefixtures("reachable")
def test_download_of_an_allowed_address(port):
    assert download(f"http://example.org:{port}/a?b=c", f"example.org:{port}") == b"x" * 100


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]"]
)
def test_loopback_is_not_fetched_even_if_it_is_allowed(host, port):
    with pytest.raises((Problem, UserError)):
        download(f"http://{host}:{port}/a", f"{host}:{port}")


def test_names_are_resolved_once_and_checked(port, monkeypatch):
    """The first answer of the name server is public, the second one is not; and one of several is not."""
    answers = [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["10.0.0.1"], []]
    monkeypatch.setattr(addresses, "_resolve", lambda host, port: answers.pop(0))
    while answers:
        with pytest.raises(Problem, match="not on the public internet"):
            download(f"http://example.org:{port}/a", f"example.org:{port}")
    connected = []
    monkeypatch.setattr(addresses, "_resolve", lambda host, port: ["8.8.8.8"])
    monkeypatch.setattr(
        addresses.socket, "create_connection", lambda place, timeout: connected.append(place) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        download(f"http://example.org:{port}/a", f"example.org:{port}")
    assert connected == [("8.8.8.8", port)]  # the address that was checked, not the name


@pytest.mark.usefixtures("reachable")
def test_redirects_stay_on_the_list(port):
    base = f"http://example.org:{port}"
    assert download(f"{base}/to//a", f"example.org:{port}") == b"x" * 100
    for target in ("http://evil.net/a", "file:///etc/passwd", f"http://127.0.0.1:{port}/a"):
        with pytest.raises(Problem, match=r"list of allowed addresses|is not an address"):
            download(f"{base}/to/{target}", f"example.org:{port}")
    with pytest.raises(Problem, match="redirects more than 3 times"):
        download(f"{base}/to//to//to//to//to//a", f"example.org:{port}")


@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/large", "larger than 0.001 MB"),
        ("/zipped", "is compressed"),
        ("/missing", "status 404"),
        ("/short", "ended after 100 of 200 bytes"),
    ],
)
def test_answers_that_are_refused(path, problem, port):
    with pytest.raises(Problem, match=problem):
        download(f"http://example.org:{port}{path}?token=secret", f"example.org:{port}")


@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize("path", ["/drip", "/endless"])
def test_slow_servers_are_cut_at_the_time_limit(path, port):
    start, limits = time.monotonic(), FetchLimits(max_bytes=1000, seconds=0.2)
    with pytest.raises(Problem, match="took too long"):
        download(f"http://example.org:{port}{path}", f"example.org:{port}", limits=limits)
    assert time.monotonic() - start < 2


def test_messages_hold_no_secrets(port):
    with pytest.raises(Problem) as caught:
        download("http://user:password@example.org/a?token=secret", "example.org")
    assert "secret" not in str(caught.value)
    assert "password" not in str(caught.value)
