"""Command `live`: text, JSON, end conditions, Ctrl-C, and one line for every error."""

import json
import os
import re
import signal
from datetime import datetime

import pytest

from mmaction_lite.cli.live import Summary, line_of
from mmaction_lite.data.sources.capture import Counts
from tests.conftest import brightening, write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_video(path, brightening(0, 100))
    return path


@pytest.fixture
def live(run, trained, clip):
    def call(*arguments, source=clip, window=("--window", "1")):
        return run("live", str(trained), str(source), *window, *arguments)

    return call


def test_answers_are_printed(live):
    code, out, err = live("--speed", "0", "--top", "1")
    assert code == 0
    first, *lines = out.splitlines()
    assert "clip.mp4: 1x1x" in first
    assert first.endswith("windows of 1 s every 1 s")
    assert len(lines) == 4
    for number, line in enumerate(lines):
        place = f"{number}.00-{number + 1}.00 s"
        assert re.fullmatch(rf"\d\d:\d\d:\d\d  {place}  (up|down) \d\.\d\d\d  latency \d+ ms", line), line
    summary = r".*clip.mp4: 4 answers, latency \d+ ms \(at most \d+ ms\); 0 windows skipped; 100 frames, "
    assert re.fullmatch(summary + r"0 dropped; 0 reconnects, 0 gaps\n", err), err


def test_json_lines(live, tmp_path):
    file = tmp_path / "answers.jsonl"
    code, out, _ = live("--speed", "0", "--json", "--jsonl", str(file), "--every", "0.5", "--answers", "3")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows == [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["start_seconds"] for row in rows] == [0, 0.5, 1]
    row = rows[0]
    assert row["source"].endswith("clip.mp4")
    assert row["end_seconds"] == 1.0
    assert {found["label"] for found in row["predictions"]} == {"up", "down"}
    assert sum(found["score"] for found in row["predictions"]) == pytest.approx(1)
    assert "windows of 1 s every 0.5 s" in row["protocol"]
    assert datetime.fromisoformat(row["time"]).tzinfo is not None
    assert (row["dropped"], row["skipped"], row["reconnects"], row["gaps"], row["part"]) == (0, 0, 0, 0, 0)
    assert live("--jsonl", str(file)) == (2, "", f"error: {file}: expected a new file; choose another name\n")


def test_a_threshold_leaves_classes_out(live):
    code, out, _ = live("--speed", "0", "--json", "--threshold", "0.5")
    assert code == 0
    for line in out.splitlines():
        assert all(found["score"] >= 0.5 for found in json.loads(line)["predictions"])
    code, out, _ = live("--speed", "0", "--threshold", "1")
    assert "  -  latency" in out


def test_it_ends_after_seconds_of_the_stream(live):
    code, out, _ = live("--speed", "0", "--json", "--loop", "--seconds", "6")
    assert code == 0
    assert [json.loads(line)["end_seconds"] for line in out.splitlines()] == [1, 2, 3, 4, 5, 6]


def test_ctrl_c_ends_with_a_summary(live, monkeypatch):
    add = Summary.add

    def interrupt(self, answer):
        add(self, answer)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Summary, "add", interrupt)
    code, out, err = live("--loop", "--every", "0.2", "--window", "0.2", window=())
    assert code == 0
    assert len(out.splitlines()) == 2  # the protocol and one answer
    assert "clip.mp4: 1 answers" in err


@pytest.mark.parametrize(
    ("arguments", "source", "message"),
    [
        ((), "gone.mp4", "gone.mp4: no such file"),
        (
            (),
            "http://admin:secret@127.0.0.1:1/x",
            "http://127.0.0.1:1/x: cannot be opened (Connection refused)",
        ),
        ((), "file:///etc/passwd", "file://...: live does not read this kind of address"),
        (("--size", "big"), "0", "--size big: expected WIDTHxHEIGHT in pixels, such as 1280x720"),
        (("--per-frame",), "0", "--window 1: does not work with --per-frame"),
        (("--loop",), "rtsp://cam/x", "rtsp://cam/x: only a file can be played in a loop"),
    ],
)
def test_errors_are_one_line(live, tmp_path, arguments, source, message):
    file = tmp_path / "answers.jsonl"
    code, out, err = live(*arguments, "--jsonl", str(file), source=source)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}"), err
    assert err.count("\n") == 1
    assert "secret" not in err
    assert not file.exists()


def test_a_line_shows_losses_only_if_there_are_any():
    row = {
        "time": "2026-01-01T12:30:00.000+00:00",
        "start_seconds": 1.0,
        "end_seconds": 2.5,
        "predictions": [{"label": "jump", "score": 0.9}],
        "latency_seconds": 0.05,
        "dropped": 0,
        "skipped": 0,
        "reconnects": 0,
    }
    assert line_of(row) == "12:30:00  1.00-2.50 s  jump 0.900  latency 50 ms"
    lost = row | {"dropped": 3, "reconnects": 1, "predictions": []}
    assert line_of(lost) == "12:30:00  1.00-2.50 s  -  latency 50 ms  3 dropped  1 reconnects"


def test_a_summary_without_answers_has_no_latency():
    assert (
        Summary().describe(Counts(frames=3)).startswith("0 answers; 0 windows skipped; 3 frames, 0 dropped")
    )
