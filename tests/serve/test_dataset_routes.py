"""Dataset mode over HTTP."""

import hashlib
import time
from pathlib import Path

import pytest

from mmaction_lite.data.sources.source import open_source
from mmaction_lite.files import read_json_lines
from mmaction_lite.serve.admission import Admission
from mmaction_lite.serve.dataset_routes import Correction
from mmaction_lite.serve.problems import Problem

CLIPS = "/v1/data/clips"


@pytest.fixture(autouse=True)
def unchanged(browsed):
    """No request may change the data set."""
    before = digest(browsed / "clips")
    yield
    assert digest(browsed / "clips") == before


def digest(folder: Path) -> list[tuple[str, str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


def test_summary(browser):
    found = browser.get("/v1/data/summary").json()
    assert (found["name"], found["split"], found["num_clips"]) == ("clips", "val", 4)
    assert found["has_predictions"]
    assert found["protocol"] == "1 clip; 4 videos, 0 unreadable"
    assert [row["class"] for row in found["classes"]] == ["down", "up"]


def test_clips_are_listed_filtered_and_sorted(browser, browsed):
    found = browser.get(CLIPS).json()
    true = [clip["true_probability"] for clip in found["clips"]]
    assert true == sorted(true)
    wrong = browser.get(CLIPS, params={"wrong": "true", "class": "up"}).json()["clips"]
    assert all(clip["labels"] == ["up"] != clip["predicted"] for clip in wrong)
    assert str(browsed) not in browser.get(CLIPS).text
    clip = found["clips"][0]
    assert browser.get(f"{CLIPS}/{clip['id']}").json() == clip


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "sort=random", "wrong=perhaps", f"class={'x' * 501}", f"page={10**9}"]
)
def test_wrong_queries(query, browser):
    answer = browser.get(f"{CLIPS}?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_videos_are_served_by_identifier_with_ranges(browser, browsed, tmp_path):
    clips = {clip["name"]: clip["id"] for clip in browser.get(CLIPS).json()["clips"]}
    original = (browsed / "clips" / "val" / "up" / "0.mp4").read_bytes()
    video = browser.get(f"{CLIPS}/{clips['up/0.mp4']}/video")
    assert (video.content, video.headers["content-type"]) == (original, "video/mp4")
    part = browser.get(f"{CLIPS}/{clips['up/0.mp4']}/video", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, original[10:20])
    beyond = browser.get(f"{CLIPS}/{clips['up/0.mp4']}/video", headers={"Range": "bytes=99999999-"})
    assert beyond.status_code == 416


@pytest.mark.slow
@pytest.mark.parametrize(("name", "query"), [("up/2.avi", ""), ("up/0.mp4", "?convert=true")])
def test_other_formats_are_converted(name, query, browser, tmp_path):
    clips = {clip["name"]: clip["id"] for clip in browser.get(CLIPS).json()["clips"]}
    video = browser.get(f"{CLIPS}/{clips[name]}/video{query}")
    assert video.content[4:8] == b"ftyp"
    (tmp_path / "x.mp4").write_bytes(video.content)
    with open_source(tmp_path / "x.mp4") as copy:
        assert len(copy) == 16
    assert browser.get(f"{CLIPS}/{clips[name]}/video{query}").content == video.content


@pytest.mark.parametrize("clip", ["x", "0", "up%2f0.mp4", "..%2f..%2fetc%2fpasswd", "%00", "a" * 3000])
def test_other_identifiers_are_not_files(clip, browser):
    for suffix in ("", "/video"):
        assert browser.get(f"{CLIPS}/{clip}{suffix}").status_code == 404


def test_labels_are_corrected_in_another_file(browser, browsed):
    clip = browser.get(CLIPS).json()["clips"][0]
    other = ["up" if clip["labels"] == ["down"] else "down"]
    answer = browser.post(f"{CLIPS}/{clip['id']}/label", json={"labels": other})
    assert answer.json()["corrected"] == other
    rows = [row for _, row in read_json_lines(browsed / "corrections.jsonl")]
    assert (rows[1]["clip"], rows[1]["corrected"]) == (clip["name"], other)
    assert browser.get(CLIPS, params={"corrected": "true"}).json()["num_clips"] == 1
    answer = browser.post(f"{CLIPS}/{clip['id']}/label", json={"labels": None})
    assert answer.json() == clip


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"labels": ["x"]},
        {"labels": []},
        {"labels": "up"},
        {"labels": ["up"], "path": "/etc"},
        [],
        "up",
        None,
    ],
)
def test_wrong_corrections(body, browser):
    clip = browser.get(CLIPS).json()["clips"][0]["id"]
    answer = browser.post(f"{CLIPS}/{clip}/label", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_server_without_a_data_set(client):
    for path in ("/v1/data/summary", CLIPS, f"{CLIPS}/x"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "--data" in answer.json()["detail"]


def test_corrections_have_one_field():
    assert list(Correction.model_fields) == ["labels"]


def test_conversions_are_limited_as_other_work(browser, monkeypatch):
    def refuse(self):
        raise Problem("busy")

    clip = browser.get("/v1/data/clips").json()["clips"][0]["id"]
    monkeypatch.setattr(Admission, "request", refuse)
    assert browser.get(f"/v1/data/clips/{clip}/video").status_code == 429


def test_the_body_of_a_correction_is_limited(browser):
    clip = browser.get(CLIPS).json()["clips"][0]["id"]

    def body():
        yield b'{"labels": ["'
        for _ in range(8):
            yield b"x" * (1 << 18)

    for headers in ({}, {"content-type": "multipart/form-data; boundary=b"}):
        answer = browser.post(f"{CLIPS}/{clip}/label", content=body(), headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")

    def slow():
        yield b"{"
        time.sleep(0.4)
        yield b"}"

    assert browser.post(f"{CLIPS}/{clip}/label", content=slow()).json()["type"] == "/problems/upload-too-slow"


def test_a_corrections_file_that_was_broken_by_hand(browser, browsed):
    clip = browser.get(CLIPS).json()["clips"][0]["id"]
    file = browsed / "corrections.jsonl"
    before = file.read_bytes() if file.exists() else None
    try:
        file.write_text("{broken\n")
        answers = [browser.get(path) for path in ("/v1/data/summary", CLIPS, f"{CLIPS}/{clip}")]
        answers.append(browser.post(f"{CLIPS}/{clip}/label", json={"labels": ["up"]}))
        assert {answer.status_code for answer in answers} <= {503, 507}
        assert all(str(browsed) not in answer.text for answer in answers)
        assert file.read_text() == "{broken\n"
    finally:
        file.unlink() if before is None else file.write_bytes(before)
