"""Cameras and addresses: what is accepted, time limits, and messages without passwords."""

import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmaction_lite.data.sources import live
from mmaction_lite.data.sources.live import (
    Address,
    CaptureSettings,
    cameras,
    open_live,
    parse_address,
    without_credentials,
)
from mmaction_lite.errors import UserError, VideoError
from tests.data.stream_server import serving

SETTINGS = CaptureSettings(timeout=0.3)


@pytest.fixture
def on_linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.parametrize(
    ("source", "kind", "location"),
    [
        (0, "device", "/dev/video0"),
        ("2", "device", "/dev/video2"),
        ("/dev/video1", "device", "/dev/video1"),
        ("./0", "file", "./0"),
        (Path("0"), "file", "0"),
        ("clips/a.mp4", "file", "clips/a.mp4"),
        ("rtsp://camera:554/stream", "network", "rtsp://camera:554/stream"),
        ("HTTP://camera/stream.m3u8", "network", "HTTP://camera/stream.m3u8"),
        ("udp://@:1234", "network", "udp://@:1234"),
    ],
)
def test_sources(on_linux, source, kind, location):
    address = parse_address(source)
    assert (address.kind, address.location) == (kind, location)


def test_cameras_have_numbers_on_other_systems(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert parse_address(1) == Address("device", "1", "camera 1")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(live, "enumerate_input_devices", lambda _: [])
    with pytest.raises(UserError, match="camera 3: not found; this machine has no camera"):
        parse_address("3")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("file:///etc/passwd", r"file://...: live does not read this kind of address; expected a camera"),
        ("concat://a|b", "concat://...: live does not read"),
        ("rtsp:///stream", r"rtsp:///stream: names no host; expected an address such as rtsp://192"),
        ("http://[::1/stream", r"http://\[::1/stream: names no host"),
    ],
)
def test_other_addresses_are_one_line(source, message):
    with pytest.raises(UserError, match=message):
        parse_address(source)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://admin:secret@10.0.0.2:554/ch1", "rtsp://10.0.0.2:554/ch1"),
        ("rtsp://admin:se/cr@et@10.0.0.2/ch1", "rtsp://10.0.0.2/ch1"),
        ("http://cam/video?user=a&password=secret", "http://cam/video?..."),
        ("http://a:secret@cam/video#secret", "http://cam/video?..."),
        ("rtsp://cam/\x1b[31m", r"rtsp://cam/\x1b[31m"),
    ],
)
def test_names_contain_no_password(address, shown):
    assert without_credentials(address) == shown
    assert parse_address(address).name == shown
    assert "secret" not in repr(parse_address(address))


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp", "tcp"])
def test_a_server_that_never_answers_is_an_error_after_the_time_limit(scheme):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}://admin:secret@127.0.0.1:{server.getsockname()[1]}/x"
        begin = time.monotonic()
        with pytest.raises(VideoError) as error:
            open_live(parse_address(address), SETTINGS)
        assert time.monotonic() - begin < 3
    assert "secret" not in str(error.value)
    assert "admin" not in str(error.value)
    assert str(error.value).startswith(f"{scheme}://127.0.0.1:")


def test_a_closed_port_and_an_unknown_page_are_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(VideoError, match=r"cannot be opened \(Connection refused\); check the address, the "):
        open_live(parse_address(f"http://127.0.0.1:{port}/x"), SETTINGS)


def test_data_of_no_accepted_format_is_refused():
    playlist = b"ffconcat version 1.0\nfile /etc/hostname\n"
    noise = np.random.default_rng(0).bytes(20_000)
    for content in (playlist, noise, b"<html>Not found</html>"):
        with (
            serving(lambda _, send, content=content: send(content)) as server,
            pytest.raises(VideoError, match="cannot be opened"),
        ):
            open_live(parse_address(server.address), SETTINGS)


def test_a_playlist_cannot_name_a_local_file(tmp_path, tiny):
    """An HLS playlist of a server may list addresses only."""
    local = (tiny / "val" / "up" / "12.mp4").absolute()
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{local}\n#EXT-X-ENDLIST\n".encode()
    with (
        serving(lambda _, send: send(playlist), "application/vnd.apple.mpegurl") as server,
        pytest.raises(VideoError, match="cannot be opened"),
    ):
        open_live(parse_address(server.address.replace("/live", "/live.m3u8")), SETTINGS)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="cameras are files on Linux only")
def test_a_missing_camera_is_one_line():
    with pytest.raises(VideoError, match=r"/dev/video987: no such camera; (this machine|cameras: /)"):
        open_live(parse_address(987), SETTINGS)
    with pytest.raises(VideoError, match=r"/dev/null: cannot be opened \(Inappropriate ioctl for device\)"):
        open_live(parse_address("/dev/null"), SETTINGS)
    with pytest.raises(VideoError, match="/dev/shm: is not a camera; "):
        open_live(Address("device", "/dev/shm", "/dev/shm"), SETTINGS)
    assert all(name.startswith("/dev/video") for name in cameras())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "permission denied; on Linux, add the user to the group"),
        (OSError(16, "Device or resource busy"), "another program uses this camera; close that program"),
        (OSError(22, "Invalid argument"), r"cannot be opened \(Invalid argument\); check --size and --fps"),
    ],
)
def test_a_camera_that_cannot_be_opened_is_one_line(monkeypatch, on_linux, error, message):
    options = {}

    def refuse(*_, **given):
        options.update(given["options"])
        raise error

    monkeypatch.setattr(live.av, "open", refuse)
    with pytest.raises(VideoError, match=f"^/dev/video987: {message}"):
        open_live(parse_address(987), CaptureSettings(fps=30, size=(1280, 720)))
    assert options["framerate"] == "30"
    assert options["video_size"] == "1280x720"
    assert options["format_whitelist"] == "v4l2"


def test_a_build_without_cameras_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(live.av, "formats_available", set())
    with pytest.raises(VideoError, match="camera 0: this build of PyAV cannot read cameras"):
        open_live(parse_address(0), SETTINGS)


def test_settings_are_checked():
    with pytest.raises(UserError, match="CaptureSettings: queue_frames is 0; expected an integer"):
        CaptureSettings(queue_frames=0)
