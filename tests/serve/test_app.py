"""The application and its description."""

from mmaction_lite.serve.app import ROUTERS


def test_the_description_lists_all_routes(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {route.path for router in ROUTERS for route in router.routes} <= paths.keys()  # pyright: ignore
    schema = paths["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"file", "model", "top"} <= schema["properties"].keys()
