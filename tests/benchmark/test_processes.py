"""Worker processes: suspended between requests, and their answers."""

import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mmaction_lite.benchmark.processes import Worker, WorkerError, find_peers, our_command
from mmaction_lite.errors import UserError
from tests.benchmark.fake_worker import state
from tests.benchmark.test_comparison import plan, save_check


def test_workers_are_stopped_between_their_turns(tmp_path, fake):
    with closing(Worker(fake, plan(), tmp_path / "log")) as worker:
        worker.begin()
        process = worker.processes[0].pid
        if not Path("/proc").exists():
            pytest.skip("no /proc to look at")
        assert state(process) == "T"
        assert worker.ask(phase="train", steps=1)["steps"] == [{"iteration": 0.02}]
        os.kill(process, signal.SIGKILL)
        worker.processes[0].wait()
        with pytest.raises(WorkerError, match="it ended"):
            worker.ask(phase="train", steps=1)


def test_the_logits_of_a_peer_are_compared_with_ours(tmp_path):
    with closing(Worker(our_command(), plan(), tmp_path / "log")) as worker:
        worker.begin()
        right, wrong = save_check(tmp_path / "right.pt"), save_check(tmp_path / "wrong.pt", 1.0)
        assert worker.ask(phase="check", file=str(right))["difference"] < 1e-5
        assert worker.ask(phase="check", file=str(wrong))["difference"] > 0.1


@pytest.mark.slow
def test_processes_that_train_together_leave_together(tmp_path):
    with closing(Worker(our_command(), plan(), tmp_path / "log", 2)) as worker:
        worker.begin()
        with pytest.raises(WorkerError, match="KeyError: 'nothing'"):
            worker.ask(phase="nothing", steps=1)
        worker._signal("SIGCONT")
        assert [process.wait(20) for process in worker.processes] == [0, 0]


def make_environment(folder: Path) -> Path:
    """What `make peers` leaves of an environment for `find_peers`."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return python


def test_other_frameworks_are_found_by_their_environments(tmp_path):
    assert find_peers(tmp_path, {}) == {}
    python = make_environment(tmp_path / "mmaction2")
    make_environment(tmp_path / "mit_tsm")  # without its checkout, it is not measured
    ((name, peer),) = find_peers(tmp_path, {}).items()
    assert name == "mmaction2"
    assert peer.command[0] == str(python)
    assert Path(peer.command[1]).is_file()
    assert peer.source is None


def test_frameworks_without_a_package_need_a_checkout_and_an_environment(tmp_path):
    checkout, peers = tmp_path / "tsm", tmp_path / "peers"
    with pytest.raises(UserError, match=r"--peer-source mit=.*: nearest: mit_tsm"):
        find_peers(peers, {"mit": checkout})
    with pytest.raises(UserError, match=r"has no ops/models.py; expected a checkout of mit_tsm"):
        find_peers(peers, {"mit_tsm": checkout})
    (checkout / "ops").mkdir(parents=True)
    (checkout / "ops" / "models.py").touch()
    with pytest.raises(UserError, match=r"no environment for --peer-source mit_tsm.*mit_tsm\.txt"):
        find_peers(peers, {"mit_tsm": checkout})
    make_environment(peers / "mit_tsm")
    (peer,) = find_peers(peers, {"mit_tsm": checkout}).values()
    assert peer.source == checkout


def test_a_checkout_comes_first_among_the_modules_of_its_worker(tmp_path, monkeypatch):
    code = "import json, os, sys; print(json.dumps({'framework': os.environ['PYTHONPATH'], 'phases': []}))"
    monkeypatch.setenv("PYTHONPATH", "before")
    for source, expected in ((tmp_path, f"{tmp_path}{os.pathsep}before"), (None, "before")):
        command = [sys.executable, "-c", code]
        with closing(Worker(command, plan(), tmp_path / "log", source=source)) as worker:
            worker.begin()
            assert worker.about["framework"] == expected
