"""The OpenAPI description of the application, with problem details as the answer to every error."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from mmaction_lite.serve.problems import MEDIA_TYPE

PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "ProblemDetails",
    "description": "An error (RFC 9457).",
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "Address of the description of this type of problem."},
        "title": {"type": "string", "description": "Summary of the type."},
        "status": {"type": "integer", "description": "HTTP status."},
        "detail": {"type": "string", "description": "What is wrong in this request."},
        "advice": {"type": "string", "description": "How to solve the problem."},
    },
    "required": ["type", "title", "status", "detail", "advice"],
}
PROBLEM_ANSWER = {
    "description": "Problem details",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
}
UNUSED = ("HTTPValidationError", "ValidationError")  # schemas of the errors of FastAPI, which are not sent
FILES = ("video/mp4", "video/webm", "text/csv", "text/vtt", "application/x-subrip", "application/json")
# Routes that answer with a file or with events; FastAPI does not know their content types.
CONTENT_TYPES = {
    "/v1/jobs/{number}/result.{kind}": FILES,
    "/v1/jobs/{number}/events": ("text/event-stream",),
    "/v1/run/events": ("text/event-stream",),
    "/v1/examples/{name}": ("video/mp4",),
    "/v1/data/clips/{clip}/video": ("video/mp4", "video/webm"),
    "/metrics": ("text/plain",),
}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description of an application; it is made once."""
    if app.openapi_schema is None:
        content = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        schemas = content.setdefault("components", {}).setdefault("schemas", {})
        for name in UNUSED:
            schemas.pop(name, None)
        schemas["ProblemDetails"] = PROBLEM_SCHEMA
        for path, operations in content["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = PROBLEM_ANSWER
                if path in CONTENT_TYPES:
                    found = {kind: {"schema": {"type": "string"}} for kind in CONTENT_TYPES[path]}
                    operation["responses"]["200"]["content"] = found
        app.openapi_schema = content
    return app.openapi_schema
