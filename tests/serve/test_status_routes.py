"""The server lists its models and limits."""

from mmaction_lite.serve.status_routes import ModelInfo


def test_models_classes_and_limits(client):
    found = client.get("/v1/models").json()
    assert set(found["models"][0]) == set(ModelInfo.model_fields)
    assert found["models"][0]["name"] == "small"
    assert found["models"][0]["loaded"] is True
    assert found["limits"]["max_bytes"] > 0
    assert found["views"] == {"data": False, "run": False}
    assert client.get("/v1/models/small/classes").json() == {"classes": ["up", "down"]}
    assert client.get("/v1/models/other/classes").json()["type"] == "/problems/unknown-model"
    assert client.get("/healthz").json() == {"status": "ok"}


def test_the_views_of_the_page_are_listed(browser):
    assert browser.get("/v1/models").json()["views"] == {"data": True, "run": True}
