"""The server as a process: signals, limits of headers, the end of its folder and processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.serve import server
from mmaction_lite.serve.server import bind
from mmaction_lite.serve.settings import ServeSettings

SERVE = "import sys; from mmaction_lite.cli import main; sys.argv[1:1] = ['serve']; main()"


@pytest.fixture
def start(weights, tmp_path):
    """Start the command; return the process and its address."""
    processes = []

    def call(*options):
        command = [sys.executable, "-c", SERVE, str(weights), "--port", "0", "--workers", "1", *options]
        environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        processes.append(process)
        assert process.stdout is not None
        found = re.search(r"http://\S+/", process.stdout.readline())
        assert found is not None, process.stderr.read() if process.stderr else ""
        address = found[0]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{address}readyz", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        return process, address

    yield call
    for process in processes:
        process.kill()
        process.communicate()


def test_an_address_in_use_is_an_error():
    with bind(ServeSettings(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}"):
            bind(ServeSettings(port=port))


@pytest.mark.slow
def test_accepted_requests_are_finished_at_sigterm(start, clip, tmp_path):
    process, address = start()
    assert list(tmp_path.glob("mmaction-lite-*"))
    body = (
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="/etc/secret.mp4"\r\n\r\n'
        + clip.read_bytes()
        + b"\r\n--b--\r\n"
    )
    statuses = []
    is_sent, is_stopped = threading.Event(), threading.Event()

    def slow_body():
        yield body[:100]
        is_sent.set()
        is_stopped.wait(30)
        yield body[100:]

    def post():
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = httpx.post(f"{address}v1/predict", content=slow_body(), headers=headers, timeout=60)
        statuses.append(answer.status_code)

    thread = threading.Thread(target=post)
    thread.start()
    is_sent.wait(30)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 30
    while httpx.get(f"{address}readyz").status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    refused = httpx.post(f"{address}v1/predict", files={"file": b"x"})
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/shutting-down")
    is_stopped.set()
    thread.join()
    _, error = process.communicate(timeout=60)
    assert (statuses, process.returncode) == ([200], 0)
    assert not list(tmp_path.glob("mmaction-lite-*"))
    assert "POST /v1/predict 200" in error
    assert "secret" not in error
    assert str(Path(tempfile.gettempdir())) not in error


@pytest.mark.slow
def test_headers_are_limited_in_size(start):
    process, address = start()
    for size in (20_000, 100_000, 5_000_000):
        try:
            answer = httpx.get(f"{address}healthz", headers={"x": "y" * size})
        except httpx.TransportError:  # closed while the client sends
            continue
        assert answer.status_code in (400, 431)
    assert httpx.get(f"{address}healthz").status_code == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_a_connection_without_headers_is_closed(client, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.1)
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.settimeout(10)
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n")
        assert connection.recv(1) == b""


def exchange(client, *parts):
    """The bytes that a connection receives after these parts."""
    received = b""
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.settimeout(10)
        for part in parts:
            connection.sendall(part)
            time.sleep(0.05)
        while chunk := connection.recv(4096):
            received += chunk
    return received


def test_a_request_that_is_not_http_is_a_problem(client, caplog):
    received = exchange(client, b"NONSENSE\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in received
    assert b"/problems/bad-request" in received
    head = b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    received = exchange(client, head, b"no size\r\n")  # after the answer has begun
    assert b"/problems/invalid-form" in received
    assert "data_received" not in caplog.text
