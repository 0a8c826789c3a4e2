"""The OpenAPI description of errors and files."""

from fastapi import FastAPI

from mmaction_lite.serve.description import CONTENT_TYPES, describe


def test_every_error_is_described_as_a_problem(client):
    app = FastAPI(title="x")

    @app.get("/a/{number}")
    def a(number: int) -> dict[str, int]:
        return {"number": number}

    content = describe(app)
    assert content is describe(app)
    responses = content["paths"]["/a/{number}"]["get"]["responses"]
    assert responses.keys() == {"200", "default"}
    assert list(responses["default"]["content"]) == ["application/problem+json"]
    assert "HTTPValidationError" not in str(content)


def test_files_have_content_types(client):
    paths = client.get("/openapi.json").json()["paths"]
    for path in CONTENT_TYPES.keys() - {"/metrics"}:
        found = paths[path]["get"]["responses"]["200"]["content"]
        assert list(found) == list(CONTENT_TYPES[path])
