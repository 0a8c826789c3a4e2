"""A web server of the tests, on this machine, with the faults of real servers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep


@dataclass
class Server:
    """What the server has, and how it misbehaves.

    `files` are by path (`/HOST/PATH` for a mirror). Of `statuses` and `cuts`, each request takes the first:
    a status code that it answers, or the number of bytes after which the connection breaks (None: not).
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    cuts: list[int | None] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str = ""
    has_ranges: bool = True
    has_tags: bool = True
    has_length: bool = True
    chunk: int = 1 << 16
    pause_seconds: float = 0.0
    requests: list[tuple[str, str]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return self.address + path


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server on a free port of the loopback interface."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.requests.append((self.path, wanted))
            data = state.files.get(self.path)
            status = state.statuses.pop(0) if state.statuses else 200
            if state.redirect:
                status = 302
            if data is None or status != 200:
                self.send_response(404 if status == 200 else status)
                self.send_header("Location", state.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            tag = f'"{sha256(data).hexdigest()[:12]}"'
            first = 0
            if state.has_ranges and wanted and self.headers.get("If-Range", tag) == tag:
                first = int(wanted.removeprefix("bytes=").rstrip("-"))
            if first >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            if state.has_tags:
                self.send_header("ETag", tag)
            if state.has_length:
                self.send_header("Content-Length", str(len(data) - first))
            else:
                self.send_header("Connection", "close")
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()
            cut = state.cuts.pop(0) if state.cuts else None
            end = len(data) if cut is None else min(len(data), first + cut)
            for start in range(first, end, state.chunk):
                self.wfile.write(data[start : min(end, start + state.chunk)])
                sleep(state.pause_seconds)
            if end < len(data):
                self.close_connection = True

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, BrokenPipeError):  # a client that was killed
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
