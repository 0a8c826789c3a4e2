"""The video of a request: an uploaded file, an address that the operator allows, or an example."""

import asyncio
import math
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mmaction_lite.serve.addresses import FetchLimits, fetch
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


@asynccontextmanager
async def video_file(form: Form, services: Services) -> AsyncIterator[Path]:
    """Yield the path of the video of a form. A downloaded video is deleted at the end of the block.

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
        yield form.file.path
    elif given == ["example"]:
        path = await asyncio.to_thread(services.examples.path, form.fields["example"])
        if path is None:
            raise Problem("not-found", "there is no such example")
        yield path
    else:
        path = services.uploads.new_path()
        try:
            await _download(form.fields["url"], path, services)
            yield path
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)


async def _download(address: str, path: Path, services: Services) -> None:
    """Download a video to a new file.

    Raises:
        Problem: the address is not allowed, or cannot be fetched.
    """
    if not services.allowed_addresses:
        raise Problem("url-refused", "this server fetches no addresses")
    settings = services.settings
    limits = FetchLimits(max_bytes=settings.max_bytes, seconds=settings.upload_seconds)

    def download() -> None:
        try:
            with path.open("xb") as file:
                fetch(address, services.allowed_addresses, limits, file)
        except OSError:  # of the file; those of the connection are problems
            raise Problem("storage-full", "the video cannot be stored") from None

    async with services.downloads:
        await asyncio.to_thread(download)


async def keep_video(form: Form, services: Services, folder: Path) -> Path:
    """Move the video of a form to a new folder, and return its path; an example stays where it is.

    Raises:
        Problem: see `video_file`; or the folder cannot be created. The folder does not exist then.
    """
    try:
        await asyncio.to_thread(folder.mkdir, 0o700)
    except OSError:
        raise Problem("storage-full", "the video cannot be stored") from None
    try:
        async with video_file(form, services) as path:
            if "example" in form.fields:
                return path
            return await asyncio.to_thread(path.rename, folder / "video")
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        raise


def decimal_number(form: Form, name: str, default: float | None, low: float, high: float) -> float | None:
    """Return the value of a field that is a number.

    Raises:
        Problem: the value is no number, or out of range.
    """
    text = form.fields.get(name)
    if text is None:
        return default
    try:
        number = float(text) if text.isascii() and len(text) < 30 else math.nan
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise Problem("invalid-value", f"{name} is {text[:40]!r}; expected a number from {low:g} to {high:g}")
    return number


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
