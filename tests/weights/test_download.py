"""Downloads from a server that breaks, stalls, lies and redirects."""

import errno
import random
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.weights import download as module
from mmaction_lite.weights.cache import cached_path
from mmaction_lite.weights.download import DownloadSettings, check_address, download
from mmaction_lite.weights.fetch import fetch_file

DATA = random.Random(0).randbytes(300_000)
HASH = sha256(DATA).hexdigest()
QUICK = DownloadSettings(backoff_seconds=0.001, retries=3)


@pytest.fixture
def url(server):
    server.files["/a/x.pth"] = DATA
    return server.url("/a/x.pth")


def leftovers(folder: Path) -> set[str]:
    """Names of the files in a cache, without locks."""
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_a_file_is_downloaded_once(server, url, cache_dir, capsys):
    path = fetch_file(url, HASH[:8], settings=QUICK)
    assert path.read_bytes() == DATA
    assert path == cached_path(url)
    assert path.is_relative_to(cache_dir)
    assert fetch_file(url, HASH, settings=QUICK) == path
    assert len(server.requests) == 1
    assert leftovers(cache_dir) == {"x.pth", "x.pth.sha256"}
    assert f"downloading {url} to {path}" in capsys.readouterr().err


def test_a_cut_connection_is_continued_where_it_ended(server, url):
    server.cuts = [100_000, 100_000, None]
    assert fetch_file(url, HASH, settings=QUICK).read_bytes() == DATA
    ranges = [wanted for _, wanted in server.requests]
    assert ranges == ["", "bytes=100000-", "bytes=200000-"]


def test_a_later_process_continues_the_partial_file(server, url, cache_dir):
    server.cuts = [150_000, 0, 0]
    with pytest.raises(UserError, match=r"cannot be downloaded .*save it as"):
        fetch_file(url, HASH, settings=DownloadSettings(backoff_seconds=0.001, retries=1))
    assert leftovers(cache_dir) == {"x.pth.partial", "x.pth.partial.tag"}
    server.requests.clear()
    assert fetch_file(url, HASH, settings=QUICK).read_bytes() == DATA
    assert [wanted for _, wanted in server.requests] == ["bytes=150000-"]
    assert leftovers(cache_dir) == {"x.pth"}


def test_a_complete_partial_file_is_not_downloaded_again(server, url, cache_dir, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "digest_of", lambda path: 1 / 0)  # as if killed before the renaming
        with pytest.raises(ZeroDivisionError):
            fetch_file(url, HASH, settings=QUICK)
    server.headers["X-Data"] = "none"
    server.cuts = [0]  # the next body would be empty
    assert fetch_file(url, HASH, settings=QUICK).read_bytes() == DATA
    assert server.requests[-1][1] == f"bytes={len(DATA)}-"


@pytest.mark.parametrize("change", [{"has_ranges": False}, {"has_tags": False}, {"has_length": False}])
def test_servers_without_ranges_tags_or_lengths_start_again(server, url, change):
    for name, value in change.items():
        setattr(server, name, value)
    server.cuts = [100_000, None] if "has_length" not in change else []
    assert fetch_file(url, HASH, settings=QUICK).read_bytes() == DATA


def test_a_body_without_an_end_is_cut(server, url, cache_dir):
    server.has_length = False
    limited = DownloadSettings(most_bytes=200_000)
    with pytest.raises(UserError, match="sends more than 200000 bytes and does not state its length"):
        fetch_file(url, settings=limited)
    with pytest.raises(UserError, match=r"sends more than 250000 bytes\. Check the address"):
        download(url, cache_dir / "x.pth", size=250_000, settings=QUICK)
    assert leftovers(cache_dir) == set()
    server.has_length = True
    assert fetch_file(url, HASH, settings=limited).read_bytes() == DATA


def test_a_file_that_changes_on_the_server_is_not_mixed(server, url):
    server.cuts = [100_000]
    with pytest.raises(UserError):
        fetch_file(url, settings=DownloadSettings(backoff_seconds=0.001, retries=-1))
    server.files["/a/x.pth"] = DATA[::-1]
    assert fetch_file(url, settings=QUICK).read_bytes() == DATA[::-1]


def test_damaged_first_bytes_are_downloaded_again(server, url, cache_dir):
    server.cuts = [100_000]
    with pytest.raises(UserError):
        fetch_file(url, HASH, settings=DownloadSettings(backoff_seconds=0.001, retries=-1))
    partial = cached_path(url).with_name("x.pth.partial")
    partial.write_bytes(b"\0" * partial.stat().st_size)
    assert fetch_file(url, HASH, settings=QUICK).read_bytes() == DATA


def test_a_wrong_hash_names_the_expected_and_the_found_one(server, url, cache_dir):
    with pytest.raises(UserError, match=rf"expected 12345678, found {HASH}"):
        fetch_file(url, "12345678", settings=QUICK)
    assert leftovers(cache_dir) == set()


def test_a_missing_file_and_refusals_are_final(server, url):
    with pytest.raises(UserError, match="the server answers 404 Not Found"):
        fetch_file(server.url("/a/none.pth"), settings=QUICK)
    server.statuses = [403]
    with pytest.raises(UserError, match="the server answers 403 Forbidden"):
        fetch_file(url, settings=QUICK)
    assert len(server.requests) == 2


def test_a_busy_server_is_asked_again(server, url):
    server.statuses = [503, 429, 500]
    assert fetch_file(url, HASH, settings=QUICK).read_bytes() == DATA
    server.statuses = [503] * 4
    with pytest.raises(UserError, match="the server answers 503 Service Unavailable"):
        fetch_file(f"{url}?2", settings=QUICK)


def test_a_stalled_server_times_out(server, url):
    server.chunk, server.pause_seconds = 1000, 0.2
    hasty = DownloadSettings(backoff_seconds=0.001, retries=0, timeout_seconds=0.05)
    server.cuts = [1000, 0]
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch_file(url, settings=hasty)


def test_a_server_that_drips_is_given_up(server, url):
    server.chunk, server.pause_seconds = 10, 0.01
    impatient = DownloadSettings(retries=-1, stall_seconds=0.03)
    with pytest.raises(UserError, match=r"only \d+ bytes arrived"):
        fetch_file(url, settings=impatient)


def test_a_web_page_is_not_a_file(server, url, cache_dir):
    server.headers["Content-Type"] = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="a web page instead of the file"):
        fetch_file(url, settings=QUICK)
    assert leftovers(cache_dir) == set()


def test_another_length_is_refused(url):
    with pytest.raises(UserError, match="the file has 300000 bytes; expected 5"):
        fetch_file(url, HASH, 5, settings=QUICK)


def test_a_full_disk_is_seen_before_and_during_the_download(server, url, cache_dir, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=9))
        with pytest.raises(UserError, match=r"the disk has 0 MB left.*MMACTION_LITE_CACHE"):
            fetch_file(url, HASH, settings=QUICK)

    def full(*arguments, **_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_receive", full)
        with pytest.raises(UserError, match=r"x\.pth\.partial: the disk is full"):
            fetch_file(url, HASH, settings=QUICK)
    assert fetch_file(url, HASH, settings=QUICK).read_bytes() == DATA


def test_offline_names_the_address_and_the_path(url, monkeypatch):
    monkeypatch.setenv("MMACTION_LITE_OFFLINE", "1")
    with pytest.raises(UserError) as error:
        fetch_file(url, HASH)
    assert url in str(error.value)
    assert str(cached_path(url)) in str(error.value)
    cached_path(url).parent.mkdir(parents=True, exist_ok=True)
    cached_path(url).write_bytes(DATA)  # by hand, as the message says
    assert fetch_file(url, HASH).read_bytes() == DATA


def test_without_a_network_the_message_says_how_to_continue(cache_dir):
    with pytest.raises(
        UserError, match=r"ConnectError.*proxy settings, or set MMACTION_LITE_MIRROR.*save it as"
    ):
        fetch_file("http://127.0.0.1:9/x.pth", settings=DownloadSettings(retries=0, backoff_seconds=0))


def test_a_mirror_is_asked_instead(server, cache_dir, monkeypatch):
    server.files["/mirror/example.org/models/x.pth"] = DATA
    monkeypatch.setenv("MMACTION_LITE_MIRROR", server.url("/mirror/"))
    path = fetch_file("https://example.org/models/x.pth", HASH, settings=QUICK)
    assert path == cache_dir / "example.org" / "models" / "x.pth"
    monkeypatch.setenv("MMACTION_LITE_MIRROR", "/a/folder")
    with pytest.raises(UserError, match="MMACTION_LITE_MIRROR=/a/folder: not an address"):
        fetch_file("https://example.org/models/y.pth")


def test_a_proxy_is_asked(server, cache_dir, monkeypatch):
    server.files["http://example.org/x.pth"] = DATA  # a proxy receives the whole address
    monkeypatch.setenv("HTTP_PROXY", server.address)
    assert fetch_file("http://example.org/x.pth", HASH, settings=QUICK).read_bytes() == DATA
    monkeypatch.setenv("HTTP_PROXY", "nonsense://x")
    with pytest.raises(UserError, match="not a usable proxy"):
        fetch_file("http://example.org/y.pth")


def test_http_needs_permission_also_after_a_redirect(server, url, monkeypatch):
    server.redirect = "ftp://example.org/x.pth"
    with pytest.raises(
        UserError, match=r"ftp://example\.org/x\.pth: not an https address|cannot be downloaded"
    ):
        fetch_file(url, settings=QUICK)
    monkeypatch.delenv("MMACTION_LITE_ALLOW_HTTP")
    with pytest.raises(UserError, match=r"not an https address.*Set MMACTION_LITE_ALLOW_HTTP=1"):
        check_address(url)
    with pytest.raises(UserError, match="not an https address"):
        fetch_file(url, settings=QUICK)
    check_address("https://example.org/x.pth")


def test_messages_hide_passwords(server, url, capsys):
    secret = server.url("/a/none.pth").replace("//", "//me:secret@")
    with pytest.raises(UserError) as error:
        fetch_file(secret, settings=QUICK)
    assert "secret" not in str(error.value) + capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(url, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMACTION_LITE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="the cache folder cannot be created"):
        fetch_file(url, HASH)


CLIENT = """
import sys
from mmaction_lite.weights.fetch import fetch_file
print(fetch_file(sys.argv[1], sys.argv[2]))
"""


def start(url: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, url, HASH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_eight_processes_download_once(server, url):
    server.pause_seconds = 0.2
    processes = [start(url) for _ in range(8)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    assert {out.strip() for out, _ in outputs} == {str(cached_path(url))}
    assert cached_path(url).read_bytes() == DATA
    assert len(server.requests) == 1


@pytest.mark.slow
def test_thirty_kills_never_damage_the_cache(server, url, cache_dir):
    rng = random.Random(1)
    server.chunk, server.pause_seconds = 3000, 0.005  # half a second in all
    target, complete = cached_path(url), 0
    for _ in range(30):
        process = start(url)
        deadline = time.monotonic() + 20
        requests = len(server.requests)
        while len(server.requests) == requests and not target.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.06) if rng.random() < 0.8 else rng.uniform(0.4, 0.7))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if target.exists():
            assert target.read_bytes() == DATA
            complete += 1
            for path in cache_dir.rglob("x.pth*"):
                path.unlink()
    assert any(wanted for _, wanted in server.requests)  # some continued
    server.pause_seconds = 0.0
    if not target.exists():
        download(url, target, sha256=HASH)
    assert target.read_bytes() == DATA
