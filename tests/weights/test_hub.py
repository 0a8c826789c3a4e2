"""Files of the Hugging Face Hub, with a stand-in for its client."""

import sys
from types import SimpleNamespace

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.weights.fetch import fetch_file
from mmaction_lite.weights.hub import download_from_hub


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Arguments of the calls of a client that has the file `a.safetensors`."""
    found = []

    def hf_hub_download(repo, file, *, revision, local_files_only):
        found.append((repo, file, revision, local_files_only))
        if file != "a.safetensors":
            raise FileNotFoundError("404\nno such file")
        (tmp_path / file).write_bytes(b"a")
        return str(tmp_path / file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=hf_hub_download))
    return found


def test_owner_name_revision_and_file_are_passed_to_the_client(calls, monkeypatch, tmp_path):
    assert download_from_hub("hf://o/n/a.safetensors") == tmp_path / "a.safetensors"
    monkeypatch.setenv("MMACTION_LITE_OFFLINE", "1")
    download_from_hub("hf://o/n@v1/a.safetensors")
    assert calls == [
        ("o/n", "a.safetensors", None, False),
        ("o/n", "a.safetensors", "v1", True),
    ]


def test_the_hash_of_a_file_of_the_hub_is_checked(calls):
    with pytest.raises(UserError, match="expected 00000000 of the file of the Hub"):
        fetch_file("hf://o/n/a.safetensors", "00000000")


def test_errors_are_one_line(calls, monkeypatch):
    with pytest.raises(UserError, match=r"^hf://o/n/b: cannot be downloaded \(.*404 no such file\)"):
        download_from_hub("hf://o/n/b")
    with pytest.raises(UserError, match="expected hf://OWNER/NAME/FILE"):
        download_from_hub("hf://o/n")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'mmaction-lite\[hub\]'"):
        download_from_hub("hf://o/n/a.safetensors")
