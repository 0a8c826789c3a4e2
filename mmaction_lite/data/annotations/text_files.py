"""Text of annotation files: size limits, encodings, byte order marks and lines."""

import codecs
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from mmaction_lite.errors import UserError, printable, reading
from mmaction_lite.files import open_regular

MAX_BYTES = 512 << 20
MAX_ROWS = 5_000_000
MAX_JSON_BYTES = 128 << 20
BYTE_ORDER_MARK = "\ufeff"
# Longest mark first: the mark of UTF-32 begins with that of UTF-16.
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def read_bytes(file: Path, most: int = MAX_BYTES) -> bytes:
    """Read a file of at most `most` bytes.

    Raises:
        UserError: it is no regular file, is too large, or cannot be read.
    """
    with reading(file), open_regular(file, _not_regular(file)) as stream:
        _check_size(file, os.fstat(stream.fileno()).st_size, most)
        return stream.read()


def check_regular(file: Path, status: os.stat_result, most: int = MAX_BYTES) -> None:
    """Check that a file is regular and has at most `most` bytes.

    Raises:
        UserError: it is a folder, a named pipe or a device, or is too large.
    """
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(file)
    _check_size(file, status.st_size, most)


def _not_regular(file: Path) -> UserError:
    return UserError(f"{file}: is not a regular file; expected an annotation file")


def _check_size(file: Path, size: int, most: int) -> None:
    if size > most:
        raise UserError(
            f"{file}: has {size >> 20} MiB; an annotation file of this kind has at most {most >> 20} MiB. "
            "Divide it"
        )


def read_text(file: Path, *, keeps_bytes: bool = False, most: int = MAX_BYTES) -> str:
    r"""Read a text file, without byte order marks, and with \n at the end of each line.

    The encoding is UTF-8, or UTF-16 or UTF-32 if the file begins with the byte order mark of one of these.

    Args:
        file: the file.
        keeps_bytes: whether to keep bytes that are not UTF-8 as lone surrogates, as in names of files.
        most: size limit in bytes.

    Raises:
        UserError: it has another encoding, is no regular file, or is too large.
    """
    data = read_bytes(file, most)
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, "surrogateescape" if keeps_bytes and encoding == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{file}: is not a UTF-8 text file ({error.reason} in line {line}); save it as UTF-8"
        ) from None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
        if "\n" not in text:  # the line breaks of old spreadsheets
            text = text.replace("\r", "\n")
    if BYTE_ORDER_MARK in text:
        # Concatenated files have a mark at the beginning of each.
        text = text.removeprefix(BYTE_ORDER_MARK).replace("\n" + BYTE_ORDER_MARK, "\n")
    return text


def split_lines(text: str, file: Path) -> list[str]:
    r"""Split text at \n only, unlike `str.splitlines`: names may contain other separators, such as U+2028.

    Raises:
        UserError: there are more than `MAX_ROWS` lines.
    """
    check_rows(text.count("\n"), file)
    return text.removesuffix("\n").split("\n") if text else []


def check_rows(count: int, file: Path) -> None:
    """Check that a file has at most `MAX_ROWS` rows.

    Raises:
        UserError: it has more.
    """
    if count > MAX_ROWS:
        raise UserError(f"{file}: has {count} rows; an annotation file has at most {MAX_ROWS}. Divide it")


def check_utf8(text: str, place: str) -> None:
    """Check that text has no bytes that are not UTF-8, which `read_text` may keep.

    Args:
        text: a line or a part of it.
        place: file and line, for the message.

    Raises:
        UserError: there are such bytes.
    """
    if not text.isascii() and _NOT_UTF8.search(text):
        raise UserError(
            f"{place}: {printable(text, 200)!r}: is not UTF-8 text; save the file as UTF-8, or rename the "
            "clip"
        )


def load_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is not JSON, is not UTF-8, or is too large.
    """
    text = read_text(file, most=MAX_JSON_BYTES)
    return parse_json(text, str(file))


def parse_json(text: str, place: str, *, has_unique_keys: bool = False) -> Any:
    """Parse JSON text.

    Args:
        text: the text.
        place: file, or file and line, for the message.
        has_unique_keys: whether an object with two equal keys is an error; otherwise the last one counts.

    Raises:
        UserError: it is not JSON, is nested too deeply, or has two equal keys.
    """
    try:
        return _UNIQUE.decode(text) if has_unique_keys else json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of more than 4,300 digits is a ValueError
        reason = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error), 200)
        raise UserError(f"{place}: is not JSON ({reason})") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} occurs twice")
        found[key] = value
    return found


_UNIQUE = json.JSONDecoder(object_pairs_hook=_unique_keys)
