"""Errors of the REST interface as problem details (RFC 9457), one type for each kind of problem."""

from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mmaction_lite.errors import printable

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """A type of problem.

    Args:
        status: HTTP status.
        title: short summary, the same for every occurrence.
        advice: how a client can solve the problem.
    """

    status: int
    title: str
    advice: str


KINDS = {
    "bad-request": Kind(400, "The request is malformed", "Compare the request with /docs."),
    "bad-host": Kind(400, "The Host header names another server", "Call the server by its own name."),
    "invalid-form": Kind(400, "The form data is malformed", "Send multipart/form-data with one video."),
    "unauthorized": Kind(401, "The token is missing or wrong", "Send Authorization: Bearer TOKEN."),
    "cross-site": Kind(403, "The request comes from a page of another site", "Open the page of this server."),
    "url-refused": Kind(403, "The address may not be fetched", "Send the video as `file`."),
    "not-found": Kind(404, "There is no such resource", "See /docs for the resources."),
    "unknown-model": Kind(404, "There is no such model", "See GET /v1/models for the names."),
    "method-not-allowed": Kind(405, "The resource does not support this method", "See /docs."),
    "upload-too-slow": Kind(408, "The upload takes too long", "Send a smaller file."),
    "conflict": Kind(409, "The resource is in another state", "Read its state again."),
    "gone": Kind(410, "The resource has expired", "Create it again."),
    "too-large": Kind(413, "The upload is too large", "Send a smaller or shorter video."),
    "invalid-value": Kind(422, "A value is invalid", "Compare the values with /docs."),
    "unreadable-video": Kind(
        422, "The video cannot be read", "Send MP4, MOV, MKV, WebM, AVI or MPEG that a player can play."
    ),
    "video-too-long": Kind(422, "The video is too long", "Send a shorter part of it."),
    "frame-too-large": Kind(422, "The frames of the video are too large", "Scale the video down."),
    "decoding-timeout": Kind(422, "Reading the video takes too long", "Encode the video again."),
    "decoder-crashed": Kind(422, "The decoder ended while it read the video", "Encode the video again."),
    "unsuitable-model": Kind(422, "The model cannot do this", "Choose another model."),
    "job-timeout": Kind(422, "The job takes too long", "Send a shorter video."),
    "headers-too-large": Kind(431, "The headers of the request are too large", "Send fewer headers."),
    "busy": Kind(429, "The server works on too many requests", "Repeat the request later."),
    "rate-limited": Kind(429, "The client sends too many requests", "Send fewer requests."),
    "client-closed": Kind(499, "The client closed the connection", "Repeat the request."),
    "internal-error": Kind(500, "The server failed", "Report the problem to the operator."),
    "fetch-failed": Kind(502, "The address cannot be fetched", "Check the address."),
    "data-unreadable": Kind(503, "The server cannot read its data", "Ask the operator of the server."),
    "storage-full": Kind(507, "The server cannot store the upload", "Ask the operator of the server."),
    "shutting-down": Kind(503, "The server is shutting down", "Repeat the request later."),
    "model-unavailable": Kind(503, "The model cannot be loaded", "Ask the operator of the server."),
}
BY_STATUS = {400: "bad-request", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}


class Problem(Exception):
    """An error that a client receives as problem details.

    Args:
        kind: key of `KINDS`.
        detail: explanation of this occurrence. It contains no path of the server.
        headers: further headers of the answer, such as Retry-After.
        members: further members of the JSON object.
    """

    def __init__(
        self,
        kind: str,
        detail: str = "",
        headers: dict[str, str] | None = None,
        members: dict[str, Any] | None = None,
    ):
        super().__init__(detail or KINDS[kind].title)
        self.kind, self.headers, self.members = kind, headers or {}, members or {}

    @property
    def status(self) -> int:
        """HTTP status."""
        return KINDS[self.kind].status

    def to_json(self) -> dict[str, Any]:
        """Return the problem details: type, title, status, detail and advice."""
        status, title, advice = KINDS[self.kind]
        text = {"title": title, "status": status, "detail": printable(str(self)), "advice": advice}
        return {"type": f"/problems/{self.kind}"} | text | self.members


def problem_response(problem: Problem) -> JSONResponse:
    """Return the answer that carries a problem."""
    return JSONResponse(problem.to_json(), problem.status, problem.headers, MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Answer every exception of a route with problem details, and describe the types at /problems/KIND."""

    async def on_problem(request: Request, error: Exception) -> Response:
        return problem_response(as_problem(error))

    for kind in (Problem, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, on_problem)

    @app.get("/problems/{kind}", tags=["problems"], summary="Describe a type of problem")
    async def describe_problem(kind: str) -> dict[str, Any]:
        if kind not in KINDS:
            raise Problem("not-found", "there is no such type of problem")
        return {"type": f"/problems/{kind}"} | KINDS[kind]._asdict()


def as_problem(error: Exception) -> Problem:
    """Return the problem that an exception of a route stands for."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        fields = [
            {"field": ".".join(map(str, each["loc"])), "problem": printable(str(each["msg"]), 200)}
            for each in list(error.errors())[:20]
        ]
        first = fields[0] if fields else {"field": "request", "problem": "is invalid"}
        return Problem("invalid-value", f"{first['field']}: {first['problem']}", members={"errors": fields})
    if isinstance(error, HTTPException):
        otherwise = "bad-request" if error.status_code < 500 else "internal-error"
        kind = BY_STATUS.get(error.status_code, otherwise)
        same = HTTPStatus(KINDS[kind].status).phrase == error.detail
        return Problem(kind, "" if same else str(error.detail), dict(error.headers or {}))
    # The text of other errors may contain paths of the server.
    return Problem("internal-error", f"unexpected {type(error).__name__}")
