"""Run mode over HTTP: the curves, and new rows as events."""

import json

from mmaction_lite.serve.run_routes import run_events
from tests.serve.browsing import write_run


def test_the_curves_of_a_run(browser, browsed):
    found = browser.get("/v1/run").json()
    assert (found["name"], found["state"], len(found["training"])) == ("mine", "stopped", 3)
    assert found["validation"][0]["protocol"] == "1 clip; 6 videos, 0 unreadable"
    assert str(browsed) not in json.dumps(found)


def test_the_curves_arrive_as_events(browser):
    with browser.stream("GET", "/v1/run/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        data = next(line for line in lines if line.startswith("data: "))
    assert len(json.loads(data.removeprefix("data: "))["training"]) == 3


def test_only_new_rows_are_sent(tmp_path):
    poll = run_events(write_run(tmp_path / "mine", 2))
    (first,), is_last = poll()
    assert not is_last
    assert [row["step"] for row in first.data["training"]] == [1, 2]
    assert poll() == ([], False)
    write_run(tmp_path / "mine", 4)
    (second,), _ = poll()
    assert [row["step"] for row in second.data["training"]] == [3, 4]
    assert not second.data["is_reset"]
    (tmp_path / "mine" / "weights.safetensors").touch()
    (third,), _ = poll()
    assert (third.data["state"], third.data["training"]) == ("finished", [])
    write_run(tmp_path / "mine", 1)  # a resumed training writes rows again
    (fourth,), _ = poll()
    assert fourth.data["is_reset"]
    assert [row["step"] for row in fourth.data["training"]] == [1]


def test_a_server_without_a_run(client):
    for path in ("/v1/run", "/v1/run/events"):
        assert client.get(path).json()["type"] == "/problems/not-found"
