"""Receive forms with a video: streamed to a private folder, within limits, and deleted after the request."""

import os
import secrets
import shutil
import tempfile
import time
from asyncio import timeout, to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.settings import ServeSettings

FLUSH_BYTES = 1 << 20  # received bytes that are written to the disk at once
MAX_VALUE_BYTES = 4096  # of a field that is not a file
MAX_NAME_BYTES = 64
MAX_JSON_BYTES = 1 << 20  # of a body that is not a form


class Upload(NamedTuple):
    """A received file.

    Args:
        path: the file in the private folder. Its name is random; the name that the client gives is ignored.
        num_bytes: its size.
    """

    path: Path
    num_bytes: int


class Form(NamedTuple):
    """A received form.

    Args:
        fields: values of the fields, by name.
        file: the field `file`, if the form has one.
        seconds: how long the upload took.
    """

    fields: dict[str, str]
    file: Upload | None
    seconds: float


class UploadFolder:
    """A private temporary folder, created at its first use; `close` deletes it with everything in it."""

    def __init__(self) -> None:
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """Path of the folder, which only the user of the server can read."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix="mmaction-lite-"))
        return self._path

    def new_path(self) -> Path:
        """Return the path of a file that does not exist yet. Its name is random and has no suffix."""
        return self.path / secrets.token_hex(16)

    def close(self) -> None:
        """Delete the folder."""
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)


@asynccontextmanager
async def receive_form(
    request: Request, folder: UploadFolder, settings: ServeSettings
) -> AsyncIterator[Form]:
    """Receive a form, and delete its file at the end of the block.

    Args:
        request: a request with the content type multipart/form-data.
        folder: where the file is written.
        settings: limits of size, time and number of fields.

    Raises:
        Problem: the form is malformed, or exceeds a limit.
    """
    started = time.perf_counter()
    boundary = _boundary(request)
    if stated_length(request.headers) > _most_bytes(settings):
        raise _too_large(settings)
    with _FormReader(boundary, folder, settings) as reader:
        try:
            async with timeout(settings.upload_seconds):
                await _receive(request, reader, settings)
        except TimeoutError:
            raise Problem(
                "upload-too-slow", f"the upload takes more than {settings.upload_seconds:g} s"
            ) from None
        yield reader.form(time.perf_counter() - started)


async def _receive(request: Request, reader: "_FormReader", settings: ServeSettings) -> None:
    """Read the body of a request into the reader."""
    stream = request.stream()
    num_bytes = 0
    while True:
        try:
            async with timeout(settings.stall_seconds):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise Problem("upload-too-slow", f"no data arrived for {settings.stall_seconds:g} s") from None
        except ClientDisconnect:
            raise Problem("client-closed", "the connection ended during the upload") from None
        if chunk is None:
            break
        num_bytes += len(chunk)
        if num_bytes > _most_bytes(settings):
            raise _too_large(settings)
        reader.feed(chunk)
        if reader.pending_bytes >= FLUSH_BYTES:
            await to_thread(reader.flush)
    await to_thread(reader.finish)


async def receive_small(request: Request, settings: ServeSettings) -> bytes:
    """Receive a body that is not a form.

    Args:
        request: the request.
        settings: limit of the time.

    Raises:
        Problem: it exceeds a limit, or the client ends the connection.
    """
    body = bytearray()
    try:
        async with timeout(settings.stall_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_JSON_BYTES:
                    raise Problem("too-large", f"the body is larger than {MAX_JSON_BYTES} bytes")
    except TimeoutError:
        raise Problem("upload-too-slow", f"the body takes more than {settings.stall_seconds:g} s") from None
    except ClientDisconnect:
        raise Problem("client-closed", "the connection ended during the upload") from None
    return bytes(body)


def stated_length(headers: Headers) -> int:
    """Return the value of the header Content-Length; 0 without a valid one."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def _most_bytes(settings: ServeSettings) -> int:
    """Return the largest size of a body: the file, and all fields around it."""
    return settings.max_bytes + settings.max_fields * 2 * MAX_VALUE_BYTES


def _too_large(settings: ServeSettings) -> Problem:
    return Problem("too-large", f"the upload is larger than {settings.max_bytes} bytes")


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 200:
        raise Problem("invalid-form", "the content type is not multipart/form-data with a boundary")
    return boundary


class _FormReader:
    """Parse a form piece by piece. A context manager, which deletes the file at its end."""

    def __init__(self, boundary: bytes, folder: UploadFolder, settings: ServeSettings):
        self._folder, self._settings = folder, settings
        self._fields: dict[str, str] = {}
        self._names: set[str] = set()
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._num_bytes = self._num_parts = self.pending_bytes = 0
        self._pending: list[bytes] = []
        self._header, self._value, self._disposition = b"", b"", b""
        self._name, self._data, self._is_file, self._is_complete = "", b"", False, False
        callbacks = {
            "on_part_begin": self._begin_part,
            "on_part_data": self._take_data,
            "on_part_end": self._end_part,
            "on_header_field": self._take_header,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)  # pyright: ignore[reportArgumentType]

    def __enter__(self) -> "_FormReader":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def feed(self, chunk: bytes) -> None:
        """Parse the next piece of the body.

        Raises:
            Problem: the form is malformed, or exceeds a limit.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Problem("invalid-form", f"the form cannot be parsed: {error}") from None

    def flush(self) -> None:
        """Write what was received to the file."""
        pending, self._pending, self.pending_bytes = self._pending, [], 0
        if self._file is None:
            return
        try:
            self._file.write(b"".join(pending))
        except OSError:
            raise Problem("storage-full", "the upload cannot be stored") from None

    def finish(self) -> None:
        """Write the rest of the file.

        Raises:
            Problem: the body ended in the middle of the form.
        """
        self.flush()
        if not self._is_complete:
            raise Problem("invalid-form", "the form ends before its last boundary")
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                raise Problem("storage-full", "the upload cannot be stored") from None

    def form(self, seconds: float) -> Form:
        """Return the form after `finish`."""
        upload = None if self._path is None else Upload(self._path, self._num_bytes)
        return Form(self._fields, upload, seconds)

    def _begin_part(self) -> None:
        self._num_parts += 1
        if self._num_parts > self._settings.max_fields:
            raise Problem("invalid-form", f"the form has more than {self._settings.max_fields} fields")
        self._header = self._value = self._disposition = self._data = b""

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"")
        if not 1 <= len(name) <= MAX_NAME_BYTES:
            raise Problem("invalid-form", "a field of the form has no name, or a name that is too long")
        self._name = name.decode("utf-8", "replace")
        if self._name in self._names:
            raise Problem("invalid-form", "the form has two fields of the same name")
        self._names.add(self._name)
        self._is_file = self._name == "file"
        if not self._is_file and b"filename" in options:
            raise Problem("invalid-form", "a field other than `file` holds a file")
        if self._is_file:
            self._path = self._folder.new_path()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            try:
                self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb")
            except OSError:
                raise Problem("storage-full", "the upload cannot be stored") from None

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._num_bytes += end - start
            if self._num_bytes > self._settings.max_bytes:
                raise _too_large(self._settings)
            self._pending.append(data[start:end])
            self.pending_bytes += end - start
            return
        self._data += data[start:end]
        if len(self._data) > MAX_VALUE_BYTES:
            raise Problem("invalid-form", f"a field of the form is longer than {MAX_VALUE_BYTES} bytes")

    def _end_part(self) -> None:
        if not self._is_file:
            self._fields[self._name] = self._data.decode("utf-8", "replace")

    def _end(self) -> None:
        self._is_complete = True
