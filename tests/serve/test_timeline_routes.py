"""Timeline jobs over HTTP: progress, results in all formats, cancellation, and failures of one job."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mmaction_lite.data.sources.source import open_source
from mmaction_lite.inference.annotated_video import MARK
from mmaction_lite.inference.long_video import score_video
from mmaction_lite.inference.predict import load_for_inference
from mmaction_lite.inference.segments import PathRule, find_segments
from mmaction_lite.inference.windows import Windows
from mmaction_lite.serve.jobs import Job
from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.timeline_routes import job_events
from tests.conftest import brightening, write_video

FIELDS = {"stride": "0.2", "window": "0.5", "top": "1"}


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    write_video(path, np.concatenate([brightening(number, 32) for number in range(3)]))
    return path


def start(client: httpx.Client, video: bytes, **fields: str) -> httpx.Response:
    return client.post("/v1/timeline", files={"file": video}, data=FIELDS | fields)


def events_of(client: httpx.Client, job: str, last: str | None = None) -> list[tuple[str, Any, str]]:
    """Name, data and identifier of all events until the end of the stream."""
    headers = {"Last-Event-ID": last} if last else {}
    found = []
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for text in answer.read().decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith(":"))
            if "event" in lines:
                found.append((lines["event"], json.loads(lines["data"]), lines.get("id", "")))
    return found


@pytest.fixture(scope="module")
def done(client: httpx.Client, long_clip: Path) -> str:
    """Identifier of a job that is done."""
    answer = start(client, long_clip.read_bytes())
    assert answer.status_code == 202
    job = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/jobs/{job}"
    assert events_of(client, job)[-1][0] == "done"
    return job


def test_results_equal_those_of_the_command(client, done, weights, long_clip):
    found = client.get(f"/v1/jobs/{done}/result.json").json()
    with open_source(long_clip) as source:
        expected = score_video(load_for_inference(weights), source, Windows(seconds=0.5, stride=0.2))
    segments = find_segments(expected, PathRule())
    assert found["segments"]
    assert [row["class"] for row in found["segments"]] == [segment.label for segment in segments]
    for row, segment in zip(found["segments"], segments, strict=True):
        assert (row["start"], row["end"]) == (segment.start_seconds, segment.end_seconds)
        assert row["probability"] == pytest.approx(segment.score, abs=1e-5)
    best = [row["top"][0]["probability"] for row in found["windows"]]
    np.testing.assert_allclose(best, expected.scores.max(1), atol=1e-5)
    assert client.get(f"/v1/jobs/{done}").json() == {
        "id": done,
        "state": "done",
        "done": len(best),
        "total": len(best),
    }


def test_windows_arrive_as_events(client, done):
    events = events_of(client, done)
    rows = [row for name, data, _ in events if name == "windows" for row in data["windows"]]
    assert rows == client.get(f"/v1/jobs/{done}/result.json").json()["windows"]
    assert [name for name, _, _ in events] == ["windows", "progress", "done"]
    assert events[0][2] == str(len(rows))
    (resumed, *_) = events_of(client, done, last="3")
    assert resumed[1] == {"first": 3, "windows": rows[3:]}
    assert events_of(client, done, last=str(len(rows)))[0][0] == "progress"


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("csv", b"video,label,start"),
        ("srt", b"1\n00:00:"),
        ("vtt", b"WEBVTT\n"),
        pytest.param("mp4", b"", marks=pytest.mark.slow),
    ],
)
def test_results_as_files(kind, start, client, done, tmp_path):
    answer = client.get(f"/v1/jobs/{done}/result.{kind}")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == f'attachment; filename="timeline.{kind}"'
    assert answer.content.startswith(start)
    if kind == "mp4":
        (tmp_path / "x.mp4").write_bytes(answer.content)
        assert MARK.encode() in answer.content
        with open_source(tmp_path / "x.mp4") as video:
            assert len(video) == 96
        part = client.get(f"/v1/jobs/{done}/result.mp4", headers={"Range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, b"ftyp")


@pytest.mark.parametrize("job", ["x", "../../etc/passwd", "%2e%2e%2f", "a" * 2000])
def test_unknown_jobs(job, client):
    for suffix in ("", "/events", "/result.csv"):
        answer = client.get(f"/v1/jobs/{job}{suffix}")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "fields",
    [
        {"stride": "0"},
        {"stride": "nan"},
        {"stride": "x"},
        {"window": "1e999"},
        {"background": "nothing"},
        {"top": "0"},
        {"model": "other"},
    ],
)
def test_wrong_fields(fields, client, clip):
    answer = start(client, clip.read_bytes(), **fields)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.slow
def test_a_video_that_cannot_be_read_fails_its_job_alone(client, clip):
    broken = start(client, clip.read_bytes()[:300]).json()["id"]
    other = start(client, clip.read_bytes()).json()["id"]
    events = events_of(client, broken)
    assert events[-1][0] == "problem"
    assert events[-1][1]["type"] == "/problems/unreadable-video"
    assert "/tmp" not in str(events)
    assert client.get(f"/v1/jobs/{broken}/result.csv").status_code == 409
    assert events_of(client, other)[-1][0] == "done"


def test_predictions_are_answered_while_a_job_runs(client, long_clip, clip):
    jobs = [start(client, long_clip.read_bytes(), stride="0.01").json()["id"] for _ in range(2)]
    assert client.post("/v1/predict", files={"file": clip.read_bytes()}).status_code == 200
    for job in jobs:
        assert client.delete(f"/v1/jobs/{job}").json()["state"] in ("cancelled", "done")


def test_a_job_is_cancelled(client, long_clip):
    job = start(client, long_clip.read_bytes(), stride="0.01").json()["id"]
    answer = client.delete(f"/v1/jobs/{job}")
    assert answer.json()["state"] == "cancelled"
    name, data, _ = events_of(client, job)[-1]
    assert (name, data["state"]) == ("done", "cancelled")
    assert client.delete(f"/v1/jobs/{job}").status_code == 200
    assert client.get(f"/v1/jobs/{job}").status_code == 410


def test_events_of_a_failed_job(tmp_path):
    job = Job(tmp_path, Path("video"))
    poll = job_events(job, 0)
    assert [event.name for event in poll()[0]] == ["progress"]
    assert poll() == ([], False)
    job.problem, job.state = Problem("job-timeout"), "failed"
    events, is_last = poll()
    assert is_last
    assert [event.name for event in events] == ["progress", "problem"]


def test_a_result_that_was_deleted_while_it_was_requested(client, long_clip, monkeypatch):
    job = start(client, long_clip.read_bytes()).json()["id"]
    assert events_of(client, job)[-1][0] == "done"
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: "result." not in path.name and is_file(path))
    answer = client.get(f"/v1/jobs/{job}/result.json")
    assert (answer.status_code, answer.json()["type"]) == (410, "/problems/gone")
