"""Metrics and log lines hold sizes, times and outcomes, nothing of a request."""

import asyncio
import logging

from mmaction_lite.serve.metrics import LOGGER, Metrics, Observed, locate_error


def test_requests_stages_and_batches_are_counted(client, clip):
    client.post("/v1/predict", files={"file": ("secret.mp4", clip.read_bytes())})
    client.get("/v1/models/secret/classes")
    client.request("SECRET", "/secret")
    text = client.get("/metrics").text
    assert 'requests_total{method="POST",route="/v1/predict",status="200"}' in text
    assert 'requests_total{method="GET",route="/v1/models/{name}/classes",status="404"}' in text
    assert 'stage_seconds_count{stage="decode"}' in text
    assert "batch_videos_count" in text
    assert "secret" not in text.lower()


def test_unexpected_errors_are_logged_without_their_text(caplog):
    async def fail(scope, receive, send):
        raise ValueError("/home/me/secret.mp4")

    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    async def receive():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/secret", "headers": []}
    with caplog.at_level(logging.INFO, LOGGER):
        asyncio.run(Observed(fail, Metrics())(scope, receive, send))
    assert statuses[0] == 500
    assert "unexpected ValueError in fail, line" in caplog.text
    assert "secret" not in caplog.text
    assert locate_error(KeyError("x")) == "KeyError"
