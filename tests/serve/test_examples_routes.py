"""Examples over HTTP."""

import asyncio

import pytest

from mmaction_lite.serve.examples_routes import examples as list_examples_of_the_server


def test_examples_are_listed_played_and_classified(client):
    listed = client.get("/v1/examples").json()["examples"]
    assert len(listed) == 11
    assert listed[0] == {
        "name": "move_left",
        "title": "move left",
        "class": "move_left",
        "url": "/v1/examples/move_left",
    }
    video = client.get(listed[0]["url"])
    assert (video.status_code, video.headers["content-type"]) == (200, "video/mp4")
    part = client.get(listed[0]["url"], headers={"Range": "bytes=0-7"})
    assert (part.status_code, part.content) == (206, video.content[:8])
    by_name = client.post("/v1/predict", files={"example": (None, "move_left")}).json()
    by_file = client.post("/v1/predict", files={"file": video.content}).json()
    assert by_name["predictions"] == by_file["predictions"]


@pytest.mark.parametrize("name", ["x", "..%2fmove_left", "move_left.mp4", "draft-example-move_left", "%00"])
def test_other_names_are_not_files(name, client):
    assert client.get(f"/v1/examples/{name}").status_code == 404
    answer = client.post("/v1/predict", files={"example": (None, name)})
    assert answer.json()["type"] == "/problems/not-found"


def test_addresses_hold_the_names():
    for example in asyncio.run(list_examples_of_the_server())["examples"]:
        assert example["url"].endswith(example["name"])
