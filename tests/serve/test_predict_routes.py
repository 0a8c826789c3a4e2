"""POST /v1/predict answers as `predict` does."""

import pytest

from mmaction_lite.inference.predict import predict
from mmaction_lite.serve.predict_routes import THUMBNAIL_SIDE


def test_answers_equal_those_of_predict(client, weights, clip):
    answer = client.post("/v1/predict", files={"file": clip.read_bytes()}, data={"top": "2"})
    assert answer.status_code == 200, answer.text
    found, expected = answer.json(), predict(str(weights), clip, "cpu")
    assert found["model"] == "small"
    assert found["protocol"] == str(expected.protocol)
    assert [each["class"] for each in found["predictions"]] == list(expected.labels)
    probabilities = [each["probability"] for each in found["predictions"]]
    assert probabilities == pytest.approx(expected.scores.tolist(), abs=1e-6)
    assert (found["fps"], found["size"]) == (25.0, [48, 64])
    assert [frame["index"] for frame in found["frames"]] == sorted({f["index"] for f in found["frames"]})
    assert set(found["timing_ms"]) == {"upload", "decode", "queue", "network"}


def test_thumbnails_are_pictures_of_the_frames(client, clip):
    data = {"thumbnails": "true"}
    frames = client.post("/v1/predict", files={"file": clip.read_bytes()}, data=data).json()["frames"]
    assert all(frame["thumbnail"].startswith("data:image/jpeg;base64,") for frame in frames)
    assert THUMBNAIL_SIDE == 160
