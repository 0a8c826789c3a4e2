"""A small version of benchmarks/serve_load.py: decoding processes die under load; no other request fails."""

import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from benchmarks.serve_load import form_of
from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.serve.app import create_app
from mmaction_lite.serve.models import Models
from mmaction_lite.serve.settings import ServeSettings
from tests.serve.running import running

HEADERS = {"content-type": "multipart/form-data; boundary=b0"}


@pytest.mark.slow
def test_killed_decoding_processes_fail_no_other_request(weights, clip):
    settings = ServeSettings(workers=WorkerSettings(num_workers=2), rate_per_minute=0)
    app = create_app(settings, Models([str(weights)], settings.memory_budget, "cpu"))
    is_done = threading.Event()
    kills = []

    def kill():
        while not is_done.wait(0.2) and len(kills) < 5:
            if pids := app.state.services.pool.pids:
                os.kill(pids[0], signal.SIGKILL)
                kills.append(pids[0])

    with running(app) as client:
        body = form_of(clip)
        killer = threading.Thread(target=kill)
        killer.start()
        with ThreadPoolExecutor(8) as threads:
            started = time.monotonic()
            answers = []
            while len(kills) < 5 and time.monotonic() - started < 60:
                post = partial(client.post, "/v1/predict", content=body, headers=HEADERS)
                posts = [threads.submit(post) for _ in range(16)]
                answers += [each.result() for each in posts]
        is_done.set()
        killer.join()
    statuses = Counter(answer.status_code for answer in answers)
    crashed = [answer.json()["type"] for answer in answers if answer.status_code != 200]
    assert set(crashed) <= {"/problems/decoder-crashed"}
    assert len(crashed) <= len(kills) // 2
    assert statuses[200] == len(answers) - len(crashed)
    assert len({str(answer.json()["predictions"]) for answer in answers if answer.status_code == 200}) <= 3


@pytest.mark.slow
def test_requests_beyond_the_queue_are_answered_with_429(weights, clip):
    settings = ServeSettings(workers=WorkerSettings(num_workers=1), rate_per_minute=0, queue_size=2)
    app = create_app(settings, Models([str(weights)], settings.memory_budget, "cpu"))
    with running(app) as client, ThreadPoolExecutor(8) as threads:
        body = form_of(clip)
        posts = [threads.submit(client.post, "/v1/predict", content=body, headers=HEADERS) for _ in range(24)]
        answers = [post.result() for post in posts]
    assert {answer.status_code for answer in answers} <= {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert answers[0].status_code == 200 or refused
