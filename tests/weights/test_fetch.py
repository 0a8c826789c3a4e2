"""Files from the cache or from an address, with their hash checked."""

import random
from hashlib import sha256

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.weights.cache import cached_path
from mmaction_lite.weights.download import DownloadSettings
from mmaction_lite.weights.fetch import fetch_address, fetch_file

DATA = random.Random(0).randbytes(1000)
HASH = sha256(DATA).hexdigest()
QUICK = DownloadSettings(backoff_seconds=0.001, retries=3)


@pytest.fixture
def url(server):
    server.files["/a/x.pth"] = DATA
    return server.url("/a/x.pth")


def test_an_address_may_end_with_its_hash(url):
    assert fetch_address(f"{url}#sha256={HASH}").read_bytes() == DATA
    with pytest.raises(UserError, match="expected 0123456789 of the file"):
        fetch_address(f"{url}#sha256=0123456789")
    with pytest.raises(UserError, match=r"expected #sha256= and 8 to 64 hexadecimal digits"):
        fetch_address(f"{url}#sha256=xyz")


def test_a_wrong_file_of_the_user_stays(server, url, cache_dir):
    path = cached_path(url)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=rf"x\.pth: has the SHA-256 .*; expected {HASH} of the file at http"):
        fetch_file(url, HASH, settings=QUICK)
    assert path.read_bytes() == b"mine"
    assert not server.requests


def test_a_file_without_published_hash_is_recorded_and_compared(url, cache_dir):
    path = fetch_file(url, settings=QUICK)
    assert path.with_name("x.pth.sha256").read_text() == f"{HASH}\n"
    assert fetch_file(url) == path
    path.write_bytes(b"changed")
    with pytest.raises(UserError, match=rf"expected {HASH} of the file at its download"):
        fetch_file(url)
