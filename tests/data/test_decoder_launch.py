"""Decoding processes end with their pipes; few small files start none."""

import sys
from multiprocessing import util
from typing import cast

from mmaction_lite.data.loading import decoder_launch
from mmaction_lite.data.loading.decoder_launch import end, launch, worker_count
from mmaction_lite.data.loading.worker_settings import IN_PROCESS, ONE_PER_CORE, WorkerSettings


def test_a_process_without_a_use_ends(monkeypatch):
    monkeypatch.setattr(util, "_args_from_interpreter_flags", lambda: ["-B"])
    processes = launch(1)
    assert cast(list[str], processes[0].args)[1:3] == ["-B", "-c"]
    assert processes[0].stdin is not None
    processes[0].stdin.close()
    assert processes[0].wait(timeout=60) == 0
    end(processes)
    assert launch(0) == []


def test_few_small_files_start_no_process(tmp_path, monkeypatch):
    files = [tmp_path / f"{number}.mp4" for number in range(4)]
    for file in files:
        file.write_bytes(b"small")
    assert worker_count(files, ONE_PER_CORE) == 0
    assert worker_count(files, ONE_PER_CORE, may_hold_many=True) == ONE_PER_CORE.count()
    assert worker_count(files * 4, ONE_PER_CORE) == ONE_PER_CORE.count()
    assert worker_count(files[:1], WorkerSettings(num_workers=3)) == 3
    assert worker_count(files * 4, IN_PROCESS) == 0
    monkeypatch.setattr(decoder_launch, "MANY_BYTES", 10)
    assert worker_count(files, ONE_PER_CORE) == ONE_PER_CORE.count()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert worker_count(files, ONE_PER_CORE, may_hold_many=True) == 0
    assert worker_count(files, WorkerSettings(num_workers=3)) == 0
