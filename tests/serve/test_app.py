"""The application and its description."""

from mmaction_lite.serve.app import ROUTERS


def test_the_description_lists_all_routes(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {route.path for router in ROUTERS for route in router.routes} <= paths.keys()  # pyright: ignore
    schema = paths["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"file", "model", "top"} <= schema["properties"].keys()


def test_the_reference_opens_with_and_without_a_slash(client):
    answer = client.get("/docs")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs/")
    assert client.get("/docs", follow_redirects=True).text == client.get("/docs/").text
