"""Security drill: hostile names, files, forms, addresses and headers against a running server."""

import io
import socket
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from mmaction_lite.serve import addresses
from mmaction_lite.serve.problems import MEDIA_TYPE
from tests.conftest import write_video
from tests.serve.browsing import EVIL

PREDICT = "/v1/predict"
SCRIPT = b"<script>alert(document.domain)</script>"


def problem_of(answer: httpx.Response) -> str:
    """Check that an answer is problem details without a path of the server; return its kind."""
    assert answer.headers["content-type"] == MEDIA_TYPE, answer.text[:300]
    assert "/tmp" not in answer.text
    assert "Traceback" not in answer.text
    content = answer.json()
    assert content["status"] == answer.status_code
    assert 400 <= answer.status_code < 500 or answer.status_code == 502
    return content["type"].removeprefix("/problems/")


def send(client: httpx.Client, video: bytes, name: str = "clip.mp4", **fields: str) -> httpx.Response:
    return client.post(PREDICT, files={"file": (name, video, "video/mp4")}, data=fields)


def exchange(client: httpx.Client, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send bytes to the server, with pauses between them; return what it answers until it closes."""
    port = client.base_url.port
    assert port is not None
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:  # it was answered and closed before
                break
            time.sleep(pause)
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except OSError:
            pass
    return received


# Names


@pytest.mark.parametrize(
    "name",
    [
        "../../../../tmp/evil",
        "/etc/cron.d/evil",
        "..\\..\\evil.mp4",
        "a" * 5000,
        EVIL,
        "x.php",
        "",
        "con",
        "-rf",
    ],
)
def test_names_of_files_are_ignored(name, browser, clip):
    answer = send(browser, clip.read_bytes(), name)
    if answer.status_code != 200:  # the form is malformed, or its headers are too long
        assert problem_of(answer) in ("invalid-form", "headers-too-large")
    assert name not in answer.text or len(name) < 4
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/docs/../../../../etc/passwd",
        "/docs/..%5c..%5cetc%5cpasswd",
        "/v1/examples/..%2f..%2fetc%2fpasswd",
        "/v1/data/clips/..%2f..%2fetc%2fpasswd/video",
        "/v1/jobs/..%2f..%2fetc/result.json",
        "/problems/..%2f..%2fetc%2fpasswd",
        "/%00",
        f"/{EVIL.replace(' ', '%20')}",
    ],
)
def test_paths_of_addresses_reach_no_file(path, browser):
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    head, _, body = exchange(browser, request).partition(b"\r\n\r\n")
    assert head.split()[1] in (b"404", b"400", b"405")
    assert b"root:" not in body
    assert b"text/html" not in head.lower()


def test_scripts_in_names_of_clips_and_classes_stay_data(browser):
    answer = browser.get("/v1/data/clips")
    assert EVIL in {clip["name"].split("/")[-1].removesuffix(".mp4") for clip in answer.json()["clips"]}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    for path in (f"/v1/models/{EVIL}/classes", f"/v1/jobs/{EVIL}", f"/{EVIL}"):
        answer = browser.get(path)
        problem_of(answer)
        assert answer.headers["x-content-type-options"] == "nosniff"


# Files


def zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(4):
            archive.writestr(f"{number:05}.jpg", bytes(20_000_000))
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG picture whose header states a size, and that unpacks to 10 MB."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000_000), 9)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


GIF = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;"
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello\n" * 100,
    "html": b"<!doctype html>" + SCRIPT,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg">' + SCRIPT + b"</svg>",
    "elf": b"\x7fELF" + bytes(1000),
    "zip": zip_bomb(),
    "png": png(60_000, 60_000),
    "gif": GIF,
    "y4m": b"YUV4MPEG2 W65535 H65535 F25:1 Ip A1:1 C420\nFRAME\n" + bytes(1000),
    "playlist of files": PLAYLIST.format("file:///etc/passwd").encode(),
    "playlist of addresses": PLAYLIST.format("http://127.0.0.1:PORT/x.ts").encode(),
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\nfile http://127.0.0.1:PORT/x.mp4\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video PORT RTP/AVP 96\n",
    "dash": b'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:PORT/</BaseURL></MPD>',
    "pickle": b"\x80\x04cos\nsystem\n(S'touch /tmp/evil'\ntR.",
}


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[int, list[Any]]]:
    """A port of this machine, and the connections to it."""
    connections: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, place = server.accept()
                except OSError:
                    return
                connections.append(place)
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], connections
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("kind", HOSTILE)
def test_files_that_are_no_videos(kind, browser, listener):
    port, connections = listener
    start = time.monotonic()
    found = problem_of(send(browser, HOSTILE[kind].replace(b"PORT", str(port).encode())))
    assert found in ("unreadable-video", "frame-too-large", "too-large")
    assert time.monotonic() - start < 15
    assert not connections
    assert not Path("/tmp/evil").exists()


def test_polyglots_are_data(browser, clip):
    """A file that is also a page, a script or an archive is never returned, and never run."""
    video = clip.read_bytes()
    file = io.BytesIO(video)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("x.html", SCRIPT)
    expected = send(browser, video).json()["predictions"]
    for polyglot in (
        video + SCRIPT,
        file.getvalue(),
        SCRIPT + video,
        b"GIF89a/*" + video,
        b"%PDF-1.4\n" + video,
    ):
        answer = send(browser, polyglot)
        assert SCRIPT not in answer.content
        if answer.status_code == 200:
            assert answer.json()["predictions"] == expected
            assert answer.headers["content-type"] == "application/json"
        else:
            assert problem_of(answer) == "unreadable-video"


def wide_video(width: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = 32, width, "yuv420p"
        stream.codec_context.thread_count, stream.codec_context.time_base = 1, Fraction(1, 25)
        image = np.zeros((32, width, 3), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def raw_avi(width: int) -> bytes:
    """A video without compression, whose header states another width than it has."""
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "bgr24"
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="bgr24"))
        )
    content = file.getvalue()
    place = content.index(b"strf") + 12
    return content[:place] + struct.pack("<ii", width, width) + content[place + 8 :]


@pytest.mark.parametrize("video", [wide_video(4112), raw_avi(60_000), raw_avi(1_000_000)])
def test_huge_frames_are_not_decoded(video, browser):
    start = time.monotonic()
    assert problem_of(send(browser, video)) in ("frame-too-large", "unreadable-video")
    assert time.monotonic() - start < 15


def test_long_videos_are_not_decoded(browser, tmp_path):
    write_video(tmp_path / "long.mp4", np.zeros((21 * 25, 16, 16, 3), np.uint8))
    assert problem_of(send(browser, (tmp_path / "long.mp4").read_bytes())) == "video-too-long"


def test_large_uploads_are_cut(browser):
    assert problem_of(send(browser, bytes(600_000))) == "too-large"


# Forms and connections


def multipart(fields: int) -> bytes:
    part = b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n'
    return b"".join(part % number for number in range(fields)) + b"--x--\r\n"


@pytest.mark.parametrize(
    "body",
    [
        multipart(10_000),
        b"--x\r\n" + b"X-Header: 1\r\n" * 20_000,
        b'--x\r\nContent-Disposition: form-data; name="' + b"n" * 100_000,
        b'--x\r\nContent-Disposition: form-data; name="url"\r\n\r\n' + b"u" * 100_000,
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nend',
        b"--x--\r\n",
        b"",
    ],
)
def test_hostile_forms(body, browser):
    start = time.monotonic()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = browser.post(PREDICT, content=body, headers=headers)
    assert problem_of(answer) in ("invalid-form", "too-large")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data", "application/json", "multipart/mixed; boundary=x"]
)
def test_other_content_types(kind, browser):
    headers = {"Content-Type": kind} if kind else {}
    assert problem_of(browser.post(PREDICT, content=b"x", headers=headers)) == "invalid-form"


def test_compressed_requests_are_not_unpacked(browser):
    body = zlib.compress(bytes(10_000_000), 9)
    headers = {"Content-Encoding": "deflate", "Content-Type": "multipart/form-data; boundary=x"}
    assert problem_of(browser.post(PREDICT, content=body, headers=headers)) == "invalid-form"


HEAD = (
    b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\nConnection: close\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
)


@pytest.mark.slow  # the server reads the rest of a body for some seconds
def test_slow_uploads_end(browser, clip):
    start = time.monotonic()
    stalled = exchange(browser, HEAD, b"")
    assert b" 408 " in stalled.partition(b"\r\n")[0]
    assert time.monotonic() - start < 6
    dripped = exchange(browser, HEAD, *[b"x"] * 25, pause=0.1)
    assert b" 408 " in dripped.partition(b"\r\n")[0]
    assert send(browser, clip.read_bytes()).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "", "a, b"],
)
def test_names_of_other_hosts_are_refused(host, browser):
    request = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    head, _, body = exchange(browser, request).partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert b"models" not in body


def test_pages_of_other_sites_are_refused(browser, clip):
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = browser.post(PREDICT, files={"file": clip.read_bytes()}, headers=headers)
        assert problem_of(answer) == "cross-site"
        assert "access-control-allow-origin" not in answer.headers


def test_large_headers_are_refused(browser):
    for headers in ({"X-Large": "x" * 100_000}, {f"X-{number}": "x" * 100 for number in range(1000)}):
        try:
            answer = browser.get("/v1/models", headers=headers)
        except httpx.TransportError:  # it closes the connection while the client still sends
            continue
        assert answer.status_code in (400, 431)


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        *("http://127.0.0.1:PORT/", "http://localhost:PORT/", "http://[::1]:PORT/", "http://0.0.0.0:PORT/"),
        *(
            "http://2130706433:PORT/",
            "http://0x7f.1:PORT/",
            "http://127.1:PORT/",
            "http://[::ffff:7f00:1]:PORT/",
        ),
        *(
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/",
            "http://192.168.0.1/",
            "http://[fd00::1]/",
        ),
        *("file:///etc/passwd", "ftp://127.0.0.1:PORT/", "gopher://127.0.0.1:PORT/", "//127.0.0.1:PORT/"),
        *(
            "http://a.example.org@127.0.0.1:PORT/",
            "http://127.0.0.1:PORT#a.example.org",
            "concat:/etc/passwd",
        ),
        *("http://a.example.org:PORT/", "https://a.example.org\\@127.0.0.1/", "", "/etc/passwd", "pipe:0"),
    ],
)
def test_addresses_of_this_network_are_not_fetched(address, browser, listener):
    port, connections = listener
    answer = browser.post(PREDICT, files={"url": (None, address.replace("PORT", str(port)))})
    assert problem_of(answer) == "url-refused"
    assert not connections
    assert "root:" not in answer.text


@pytest.mark.parametrize("found", [["127.0.0.1"], ["10.0.0.1"], ["8.8.8.8", "::1"], ["::ffff:127.0.0.1"]])
def test_names_of_this_network_are_not_fetched(found, browser, listener, monkeypatch):
    monkeypatch.setattr(addresses, "_resolve", lambda host, port: found)
    answer = browser.post(PREDICT, files={"url": (None, "http://a.example.org/x.mp4")})
    assert problem_of(answer) == "url-refused"
    assert not listener[1]


def test_addresses_are_off_by_default(client):
    answer = client.post(PREDICT, files={"url": (None, "https://example.org/x.mp4")})
    assert problem_of(answer) == "url-refused"
