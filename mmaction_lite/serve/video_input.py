"""The video of a request: an uploaded file, an address that the operator allows, or an example."""

from pathlib import Path

from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.services import Services
from mmaction_lite.serve.uploads import Form

# How a form with a video appears in the OpenAPI description.
VIDEO_FIELDS = {
    "file": {"type": "string", "format": "binary", "description": "Video file."},
    "url": {"type": "string", "description": "Address of a video, if the server allows addresses."},
    "example": {"type": "string", "description": "Name of an example, see GET /v1/examples."},
    "model": {"type": "string", "description": "Name of a model, see GET /v1/models; the default is first."},
}


def form_body(**fields: dict[str, object]) -> dict[str, object]:
    """Return `openapi_extra` of a route that receives a form with a video and further fields."""
    schema = {"type": "object", "properties": VIDEO_FIELDS | fields}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def video_path(form: Form, services: Services) -> Path:
    """Return the path of the video of a form.

    Raises:
        Problem: the form has no video or several, or the address or the example cannot be used.
    """
    given = [name for name in ("url", "example") if name in form.fields]
    given += ["file"] if form.file is not None else []
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise Problem("invalid-form", f"expected one of the fields file, url and example; found {found}")
    if form.file is not None:
        if not form.file.num_bytes:
            raise Problem("unreadable-video", "the file is empty (0 bytes)")
        return form.file.path
    if given == ["url"]:
        raise Problem("url-refused", "this server fetches no addresses")
    raise Problem("not-found", "there is no such example")


def whole_number(form: Form, name: str, default: int, low: int, high: int) -> int:
    """Return the integer value of a field.

    Raises:
        Problem: the value is no integer, or out of range.
    """
    text = form.fields.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    if not is_number or not low <= int(text) <= high:
        raise Problem("invalid-value", f"{name} is {text[:40]!r}; expected an integer from {low} to {high}")
    return int(text)


def is_set(form: Form, name: str) -> bool:
    """Return the boolean value of a field; a missing field is False.

    Raises:
        Problem: the value is neither true nor false.
    """
    text = form.fields.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise Problem("invalid-value", f"{name} is {text[:40]!r}; expected true or false")
    return text in ("true", "1")
