"""Worker processes: suspended between requests, and their answers."""

import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from mmaction_lite.benchmark.processes import Worker, WorkerError, find_peers, our_command
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


def test_other_frameworks_are_found_by_their_environments(tmp_path):
    assert find_peers(tmp_path) == {}
    python = tmp_path / "mmaction2" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    ((name, command),) = find_peers(tmp_path).items()
    assert name == "mmaction2"
    assert command[0] == str(python)
    assert Path(command[1]).is_file()
