"""An older commit of the package as a peer."""

import os
import subprocess
from pathlib import Path

import pytest

from mmaction_lite.benchmark.older import WORKER, export_commit
from mmaction_lite.benchmark.processes import Peer
from mmaction_lite.errors import UserError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits of a package that consists of one file."""
    root = tmp_path / "repository"
    (root / "mmaction_lite" / "benchmark").mkdir(parents=True)

    def git(*words: str) -> None:
        who = ["-c", "user.name=N", "-c", "user.email=e@x"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        subprocess.run(["git", *who, "-C", root, *words], check=True, env=environment)

    git("init", "-q")
    for text in ("old", "new"):
        (root / WORKER).write_text(text)
        git("add", ".")
        git("commit", "-qm", text)
    return root


def test_a_commit_is_exported_and_imported_first(repository, tmp_path):
    folder = tmp_path / "older"
    folder.mkdir()
    name, older = export_commit("HEAD~1", folder, repository)
    assert name.startswith("commit ")
    assert len(name) == len("commit ") + 9
    assert (folder / WORKER).read_text() == "old"
    assert older.source == folder
    assert Peer(name, older.command, "any", "float32", folder).is_older_commit


def test_a_commit_of_a_hook_is_of_the_package(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    folder = tmp_path / "older"
    folder.mkdir()
    export_commit("HEAD", folder, repository)
    assert (folder / WORKER).read_text() == "new"


def test_a_commit_without_a_benchmark_is_one_line(repository, tmp_path):
    (repository / WORKER).rename(repository / "mmaction_lite" / "other.py")
    commands = (["add", "."], ["-c", "user.name=N", "-c", "user.email=e@x", "commit", "-qm", "moved"])
    for command in commands:
        subprocess.run(["git", "-C", repository, *command], check=True)
    with pytest.raises(UserError, match=r"--against HEAD: has no mmaction_lite/benchmark/worker\.py"):
        export_commit("HEAD", tmp_path, repository)


def test_a_wrong_commit_is_one_line(repository, tmp_path):
    with pytest.raises(UserError, match="--against nothing: no such commit; expected a commit of"):
        export_commit("nothing", tmp_path, repository)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--against HEAD: .*not a git repository"):
        export_commit("HEAD", tmp_path, tmp_path / "empty")
