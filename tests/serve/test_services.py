"""The parts of a server start and end together."""

import asyncio
import os
import signal
import time
from dataclasses import replace
from typing import NamedTuple

import pytest

from mmaction_lite.data.sources.source import Source
from mmaction_lite.serve import decoding, services, timeline
from mmaction_lite.serve.app import create_app
from mmaction_lite.serve.job_readers import TimesReader
from mmaction_lite.serve.models import Models
from mmaction_lite.serve.readers import Described, VideoLimits
from mmaction_lite.serve.services import Services
from mmaction_lite.serve.settings import ServeSettings
from tests.serve.conftest import ONE_WORKER
from tests.serve.running import running


def test_the_private_folder_is_deleted_at_the_end(weights):
    settings = ServeSettings(workers=ONE_WORKER)
    services = Services(settings, Models([str(weights)], settings.memory_budget, "cpu"))
    assert services.uploads.path.is_dir()
    asyncio.run(services.close())
    assert not services.uploads.path.exists()


def test_expired_results_are_deleted_without_a_request(monkeypatch):
    monkeypatch.setattr(services, "EXPIRY_SECONDS", 0.01)
    settings = ServeSettings(workers=ONE_WORKER, result_seconds=0.01)

    async def run_job():
        parts = Services(settings, Models([], 1, may_be_empty=True))
        await parts.start()
        try:
            folder = parts.uploads.new_path()
            folder.mkdir()
            (folder / "video").touch()
            parts.jobs.start(folder, folder / "video", lambda job: None)
            async with asyncio.timeout(10):
                while folder.exists():
                    await asyncio.sleep(0.01)
        finally:
            await parts.close()

    asyncio.run(run_job())


class Killed(NamedTuple):
    """A reader whose process dies."""

    limits: VideoLimits

    def read_described(self, source: Source) -> Described:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Hanging(NamedTuple):
    """A reader that does not end."""

    limits: VideoLimits

    def read_described(self, source: Source) -> Described:
        time.sleep(60)
        raise AssertionError


@pytest.mark.slow
def test_a_video_that_kills_or_blocks_its_process_fails_one_job(weights, clip, monkeypatch):
    monkeypatch.setattr(decoding, "FIRST_SECONDS", 6.0)
    settings = ServeSettings(workers=replace(ONE_WORKER, hang_seconds=3.0), rate_per_minute=0)
    app = create_app(settings, Models([str(weights)], settings.memory_budget, "cpu"))
    video = {"file": clip.read_bytes()}
    with running(app) as client:
        for reader, kind in ((Killed, "decoder-crashed"), (Hanging, "decoding-timeout"), (TimesReader, None)):
            monkeypatch.setattr(timeline, "TimesReader", reader)
            job = f"/v1/jobs/{client.post('/v1/timeline', files=video).json()['id']}"
            assert client.post("/v1/predict", files=video).status_code == 200
            deadline = time.monotonic() + 60
            while (state := client.get(job).json())["state"] in ("queued", "running"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            if kind is None:
                assert state["state"] == "done"
            else:
                assert state["problem"]["type"] == f"/problems/{kind}"
