"""Videos that end or block a decoding process fail alone."""

import asyncio
from typing import cast

import pytest

from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.serve.decoding import DecodingPool, Reading
from mmaction_lite.serve.problems import Problem
from tests.serve.effects import Effect


def outcomes(clip, names, hang_seconds=20.0):
    """The process id, or the kind of problem, of each effect; all are requested at the same time."""
    events = []

    async def read_all():
        pool = DecodingPool(WorkerSettings(num_workers=1, hang_seconds=hang_seconds), events.append)
        pool.start()
        try:
            tasks = (pool.read(clip, Effect(name)) for name in names)
            return await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await pool.close()

    found = asyncio.run(read_all())
    return [
        each.kind if isinstance(each, Problem) else len(cast(Reading, each).pixels) for each in found
    ], events


def test_a_reader_that_fails_names_no_path(clip):
    async def read():
        pool = DecodingPool(WorkerSettings(num_workers=1))
        pool.start()
        try:
            await pool.read(clip, Effect("fail"))
        finally:
            await pool.close()

    with pytest.raises(Problem) as caught:
        asyncio.run(read())
    assert str(caught.value) == "the decoder failed"


def test_the_time_limit_of_one_call_replaces_that_of_the_settings(clip, monkeypatch):
    monkeypatch.setattr("mmaction_lite.serve.decoding.FIRST_SECONDS", 0.0)

    async def read():
        pool = DecodingPool(WorkerSettings(num_workers=1, hang_seconds=20.0))
        try:
            await pool.read(clip, Effect("block"), hang_seconds=0.1)
        finally:
            await pool.close()

    with pytest.raises(Problem, match=r"takes more than 0\.1 s"):
        asyncio.run(read())


@pytest.mark.slow
def test_a_process_that_dies_or_blocks_is_replaced(clip, monkeypatch):
    monkeypatch.setattr("mmaction_lite.serve.decoding.FIRST_SECONDS", 20.0)
    found, events = outcomes(clip, ["", "die", "", "block", ""], hang_seconds=2.0)
    assert found == [16, "decoder-crashed", 16, "decoding-timeout", 16]
    assert sorted(events) == ["crash", "crash", "hang"]
