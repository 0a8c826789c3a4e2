"""Grad-CAM maps over HTTP equal those of the command."""

import base64

import httpx
import numpy as np
import pytest
from PIL import Image

from mmaction_lite.inference.explain import ExplainSettings, explain
from mmaction_lite.serve.explain_routes import LONGEST_SIDE, to_json
from mmaction_lite.weights.card import load


def ask(client: httpx.Client, video: bytes, **fields: str) -> httpx.Response:
    return client.post("/v1/explain", files={"file": video}, data=fields)


def test_maps_equal_those_of_the_command(client, weights, clip):
    found = ask(client, clip.read_bytes()).json()
    expected = explain(load(weights), clip, settings=ExplainSettings(fill=None))
    assert (found["class"], found["protocol"]) == (expected.label, str(expected.protocol))
    assert found["probability"] == pytest.approx(expected.score, abs=1e-5)
    assert [each["frame"] for each in found["maps"]] == expected.frames.tolist()
    np.testing.assert_allclose([each["seconds"] for each in found["maps"]], expected.seconds)
    for each, map_ in zip(found["maps"], expected.maps, strict=True):
        values = np.frombuffer(base64.b64decode(each["values"]), np.uint8)
        np.testing.assert_allclose(values.reshape(each["height"], each["width"]), map_ * 255, atol=2)
    top, left, height, width = expected.box
    np.testing.assert_allclose(found["box"], [left / 64, top / 48, width / 64, height / 48])
    assert 0 <= min(found["box"]) <= max(found["box"]) <= 1


def test_another_class(client, clip):
    for name in ("up", "down"):
        assert ask(client, clip.read_bytes(), **{"class": name}).json()["class"] == name


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"class": "<script>"}, "invalid-value"),
        ({"class": ""}, "invalid-value"),
        ({"model": "x"}, "unknown-model"),
    ],
)
def test_wrong_fields(fields, kind, client, clip):
    assert ask(client, clip.read_bytes(), **fields).json()["type"] == f"/problems/{kind}"


def test_a_broken_video(client, clip):
    assert ask(client, clip.read_bytes()[:200]).json()["type"] == "/problems/unreadable-video"


def test_maps_of_large_frames_are_reduced(weights, clip):
    found = explain(load(weights), clip, settings=ExplainSettings(fill=None))
    large = np.stack([np.asarray(Image.fromarray(each).resize((280, 200))) for each in found.maps])
    answer = to_json(found._replace(maps=large))
    assert {(each["width"], each["height"]) for each in answer["maps"]} == {(LONGEST_SIDE, 46)}
    many = found._replace(
        maps=np.tile(found.maps, (50, 1, 1)),
        frames=np.arange(200),
        seconds=np.full(200, np.nan),
    )
    shown = to_json(many)["maps"]
    assert len(shown) == 64
    assert (shown[0]["frame"], shown[-1]["frame"], shown[0]["seconds"]) == (0, 199, None)
