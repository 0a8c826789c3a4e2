"""Clips in tar files (shards), local or remote, with random access.

A path such as `shards/train-00000.tar/videos/a.mp4` names a member: a video file, or a directory of images.
The index `<name>.tar.index.json` beside each tar file holds the byte range of every member, so that reading a
clip is one read of its range, in any order, and the length of a data set is known. Remote files are read by
ranges in the same way, over HTTP(S), S3 and the other protocols of fsspec (extra `remote`).
"""

import json
import re
import tarfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from mmaction_lite.data.annotations.samples import absolute, is_remote
from mmaction_lite.data.sources.frames import IMAGES
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.files import check_replaceable, write_atomically

Places = dict[str, list[tuple[str, int, int]]]
"""For each member: name, first byte and number of bytes of its file, or of each of its images."""

INDEX_SUFFIX = ".index.json"
INDICES_IN_MEMORY = 64
_MEMBER = re.compile(r"(.+\.tar)/(.+)")


def is_packed(path: str | Path) -> bool:
    """Whether a path names a member of a tar file or a remote file; both are read into memory first."""
    return is_remote(path) or bool(_MEMBER.match(str(path)) and not Path(path).exists())


def read_packed(path: str | Path) -> list[tuple[str, bytes]]:
    """Read a remote file, or a member of a tar file.

    Returns:
        (name, bytes) of the file, or of each image of a directory.

    Raises:
        VideoError: the file, the member or the index does not exist, or the server does not answer.
        UserError: a package that the protocol needs is not installed.
    """
    match = _MEMBER.match(str(path))
    if not match:
        return [(str(path), _read(str(path), 0, None))]
    tar, member = match.groups()
    members = _members(tar)
    if member not in members:
        raise VideoError(f"{path}: {tar} has no such member; its index lists {len(members)} members")
    places = members[member]
    first = min(offset for _, offset, _ in places)
    end = max(offset + size for _, offset, size in places)
    data = _read(tar, first, end - first)  # the images of a directory are adjacent: one read
    if len(data) < end - first:
        raise VideoError(f"{path}: is after the end of {tar}; the tar file may be truncated")
    return [(f"{tar}/{name}", data[offset - first : offset - first + size]) for name, offset, size in places]


@lru_cache(INDICES_IN_MEMORY)
def _members(tar: str) -> Places:
    try:
        content = json.loads(_read(tar + INDEX_SUFFIX, 0, None))
        return {
            name: [(file, int(a), int(b)) for file, a, b in places]
            for name, places in content["members"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise VideoError(
            f"{tar}{INDEX_SUFFIX}: is damaged; write it again with mmaction-lite data index"
        ) from None


def _read(path: str, first: int, size: int | None) -> bytes:
    """Return `size` bytes from `first` on; None for everything after it."""
    try:
        if not is_remote(path):
            with Path(path).open("rb") as file:
                file.seek(first)
                return file.read(-1 if size is None else size)
        import fsspec

        fs, place = fsspec.core.url_to_fs(absolute(path))
        return fs.cat_file(place, start=first, end=None if size is None else first + size)
    except ImportError as error:
        raise UserError(f"{path}: needs {error.name}: pip install 'mmaction-lite[remote]'") from None
    except FileNotFoundError:
        hint = "; write it with mmaction-lite data index" if path.endswith(INDEX_SUFFIX) else ""
        raise VideoError(f"{path}: no such file{hint}") from None
    except Exception as error:  # each protocol raises exceptions of its own
        raise VideoError(f"{path}: cannot be read ({type(error).__name__}: {error})") from None


def write_shard(tar: Path, folder: Path, members: Iterable[str], facts: dict[str, Any]) -> None:
    """Pack files and image directories into a tar file and write its index.

    Each of the two files is complete or absent; the tar file appears last. Its bytes depend on the names and
    contents of the members only.

    Args:
        tar: path of the new file.
        folder: directory of the members.
        members: their paths relative to `folder`.
        facts: further entries of the index.
    """

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode = 0, 0, 0, "", "", 0o644
        return info

    def write(stream: Any) -> None:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for member in members:
                source = folder / member
                files = [source] if source.is_file() else sorted(source.iterdir())
                for file in files:
                    archive.add(file, str(PurePosixPath(file.relative_to(folder))), filter=plain)
        stream.flush()
        stream.seek(0)
        write_index(tar, places_in(stream), facts)

    tar.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(tar, write)


def write_index(tar: Path, members: Places, facts: dict[str, Any]) -> None:
    """Write the index of a tar file beside it; `facts` are further entries.

    Raises:
        UserError: a file with the name of the index exists and is no index, or cannot be written.
    """
    content = json.dumps({"members": members, **facts}).encode()
    index = tar.with_name(tar.name + INDEX_SUFFIX)
    check_replaceable(
        index, "an index of mmaction-lite", lambda path: "members" in json.loads(path.read_text())
    )
    write_atomically(index, lambda stream: stream.write(content))


def read_facts(tar: Path) -> dict[str, Any]:
    """Return the whole index of a tar file that `write_shard` wrote."""
    return json.loads(tar.with_name(tar.name + INDEX_SUFFIX).read_text())


def places_in(stream: Any) -> Places:
    """Return the byte ranges of the members of an open tar file; the images of a directory are one member.

    Raises:
        UserError: the file is not an uncompressed tar file.
    """
    places: Places = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for info in archive:
                if info.isfile():
                    name = info.name.removeprefix("./")
                    is_image = Path(name).suffix.lower() in IMAGES
                    member = str(PurePosixPath(name).parent) if is_image else name
                    places.setdefault(member, []).append((name, info.offset_data, info.size))
    except tarfile.TarError as error:
        raise UserError(
            f"{getattr(stream, 'name', 'file')}: is not an uncompressed tar file ({error})"
        ) from None
    return places


def index_shards(tars: list[Path], video_suffixes: frozenset[str]) -> list[tuple[str, str, str]]:
    """Write the indexes of tar files and return their clips.

    The label of a clip is the text of a file beside it with the suffix `.cls` (as in WebDataset shards), or
    else the name of its directory.

    Args:
        tars: the tar files.
        video_suffixes: suffixes of video files, in lower case; other files are not clips.

    Returns:
        (tar file, member, label) of every clip.

    Raises:
        UserError: a file is not an uncompressed tar file, or a clip has no label.
    """
    rows = []
    for tar in tars:
        with tar.open("rb") as stream:
            members = places_in(stream)
            for member, places in members.items():
                is_folder = len(places) > 1 or places[0][0] != member
                if not is_folder and Path(member).suffix.lower() not in video_suffixes:
                    continue
                stem = member if is_folder else str(PurePosixPath(member).with_suffix(""))
                label = PurePosixPath(member).parent.name
                if f"{stem}.cls" in members:
                    (_, first, size), *_ = members[f"{stem}.cls"]
                    stream.seek(first)
                    label = stream.read(size).decode("utf-8", "replace").strip()
                if not label:
                    raise UserError(
                        f"{tar}: {member} has no label; expected a directory with its name, or {stem}.cls"
                    )
                rows.append((str(tar), member, label))
        write_index(tar, members, {})
    return rows
