"""The video and the values of a form."""

from mmaction_lite.serve.video_input import VIDEO_FIELDS


def test_wrong_values_are_problems(client, clip):
    for data in ({"top": "0"}, {"top": "-1"}, {"top": "x"}, {"thumbnails": "maybe"}):
        answer = client.post("/v1/predict", files={"file": clip.read_bytes()}, data=data)
        assert answer.json()["type"] == "/problems/invalid-value"
        assert next(iter(data)) in answer.json()["detail"]


def test_addresses_and_unknown_examples_are_refused(client):
    assert set(VIDEO_FIELDS) == {"file", "url", "example", "model"}
    for data, status in (({"url": "http://localhost/"}, 403), ({"example": "../x"}, 404)):
        assert client.post("/v1/predict", files={"top": (None, b"1")}, data=data).status_code == status
