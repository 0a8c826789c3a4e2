"""The video and the values of a form."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mmaction_lite.serve.addresses import parse_allowed
from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.settings import ServeSettings
from mmaction_lite.serve.uploads import Form
from mmaction_lite.serve.video_input import VIDEO_FIELDS, keep_video


def test_wrong_values_are_problems(client, clip):
    for data in ({"top": "0"}, {"top": "-1"}, {"top": "x"}, {"thumbnails": "maybe"}):
        answer = client.post("/v1/predict", files={"file": clip.read_bytes()}, data=data)
        assert answer.json()["type"] == "/problems/invalid-value"
        assert next(iter(data)) in answer.json()["detail"]


def test_addresses_and_unknown_examples_are_refused(client):
    assert set(VIDEO_FIELDS) == {"file", "url", "example", "model"}
    for data, status in (({"url": "http://localhost/"}, 403), ({"example": "../x"}, 404)):
        assert client.post("/v1/predict", files={"top": (None, b"1")}, data=data).status_code == status


def test_a_video_that_cannot_be_stored_is_a_problem(tmp_path):
    services: Any = SimpleNamespace(
        uploads=SimpleNamespace(new_path=lambda: tmp_path / "missing" / "download"),
        allowed_addresses=[parse_allowed("example.org")],
        settings=ServeSettings(),
        downloads=asyncio.Semaphore(1),
    )
    form = Form({"url": "https://example.org/a.mp4"}, None, 0.0)
    for folder in (tmp_path / "job", tmp_path / "missing" / "job"):
        with pytest.raises(Problem, match="the video cannot be stored"):
            asyncio.run(keep_video(form, services, folder))
    assert list(tmp_path.iterdir()) == []
