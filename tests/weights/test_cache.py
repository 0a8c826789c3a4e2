"""Paths of the cache, its lock and its environment variables."""

import threading
import time
from pathlib import Path

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.weights import cache


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.org/b/c.pth", "a.org/b/c.pth"),
        ("https://a.org:8443/b//c.pth", "a.org_8443/b/c.pth"),
        ("https://me:secret@a.org/c d%2Fe.pth", "a.org/c_d_e.pth"),
        ("https://a.org/c.pth?x=1", "a.org/ccd3cd74-c.pth"),
    ],
)
def test_the_path_is_host_and_path_of_the_address(cache_dir, url, expected):
    assert cache.cached_path(url) == cache_dir / expected or "?" in url
    assert cache.cached_path(url).is_relative_to(cache_dir)
    assert cache.cached_path(url) != cache.cached_path(f"{url}x")


@pytest.mark.parametrize(
    "url", ["https://a.org", "https:///x", "https://a.org/../x", "https://a.org/%2e%2e/x"]
)
def test_addresses_of_no_file_are_refused(url):
    with pytest.raises(UserError, match="not the address of a file"):
        cache.cached_path(url)


def test_the_folder_is_that_of_the_platform_or_of_the_variable(monkeypatch):
    monkeypatch.setenv("MMACTION_LITE_CACHE", "~/weights")
    assert cache.cache_folder() == Path.home() / "weights"
    monkeypatch.delenv("MMACTION_LITE_CACHE")
    assert cache.cache_folder().name == "mmaction-lite" or "mmaction-lite" in cache.cache_folder().parts


def test_a_second_writer_waits_and_says_so(cache_dir, monkeypatch, capsys):
    target, order = cache_dir / "x", []

    def other():
        with cache.locked(target):
            order.append("other")

    thread = threading.Thread(target=other)
    real = cache.FileLock.acquire
    monkeypatch.setattr(
        cache.FileLock,
        "acquire",
        lambda lock, timeout=None, **options: real(
            lock, timeout=0.01 if timeout else timeout, poll_interval=0.01, **options
        ),
    )
    with cache.locked(target):
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(5)
    assert order == ["first", "other"]
    assert f"waiting for another process that writes {target}" in capsys.readouterr().err


def test_passwords_and_control_characters_are_not_shown():
    assert cache.without_login("https://me:secret@a.org/x") == "https://a.org/x"
    assert cache.without_login("https://a.org/\x1b[2Jx@y") == "https://a.org/\\x1b[2Jx@y"
