"""Video for streams, and a local server that sends it over HTTP and cuts, stalls or refuses connections."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from tests.conftest import brightening

Serve = Callable[[int, Callable[[bytes], None]], None]
HEADER = b"HTTP/1.0 200 OK\r\nContent-Type: %s\r\nConnection: close\r\n%s\r\n"

FRAMES = 50  # of `encoded` by default


def encoded(path: Path, format: str, codec: str, frames: np.ndarray | None = None) -> bytes:
    """Return video at 25 fps with a keyframe every second; two seconds by default."""
    with av.open(str(path), "w", format=format) as container:
        options = {"preset": "ultrafast", "g": "25"} if codec == "libx264" else {}
        stream = cast(VideoStream, container.add_stream(codec, rate=25, options=options))
        stream.height, stream.width = 48, 64
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "yuvj420p"
        for image in brightening(0, FRAMES) if frames is None else frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


class StreamServer:
    """Serve each connection with a function of its number, from 0, and of a function that sends bytes.

    `length` is the length that the server states.

    Attributes:
        connections: number of connections so far.
        requests: first line of each request.
    """

    def __init__(self, serve: Serve, content_type: str = "video/mp2t", length: int | None = None) -> None:
        self.connections = 0
        self.requests: list[str] = []
        self.stopped = threading.Event()
        self._serve = serve
        size = b"" if length is None else b"Content-Length: %d\r\n" % length
        self._header = HEADER % (content_type.encode(), size)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._socket.getsockname()[1]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/live"

    def _run(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    request = connection.recv(4096)
                    self.requests.append(request.decode().partition("\r\n")[0])
                    number, self.connections = self.connections, self.connections + 1
                    connection.sendall(self._header)
                    self._serve(number, connection.sendall)
                except OSError:
                    continue  # the client has closed the connection

    def close(self) -> None:
        self.stopped.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._socket.close()
        self._thread.join(2)


@contextmanager
def serving(
    serve: Serve, content_type: str = "video/mp2t", length: int | None = None
) -> Iterator[StreamServer]:
    server = StreamServer(serve, content_type, length)
    try:
        yield server
    finally:
        server.close()
