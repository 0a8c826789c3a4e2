"""Write tar files of clips and their indexes; see `shards`."""

import io
import json
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mmaction_lite.data.annotations.class_folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from mmaction_lite.data.sources.frames import is_image
from mmaction_lite.data.sources.shards import INDEX_SUFFIX, Place, Places, folder_of, member_name
from mmaction_lite.errors import UserError, describe, printable, reading
from mmaction_lite.files import check_replaceable, write_atomically

MAX_HEADER_BYTES = 2**24  # of the extended headers of a member
MAX_LABEL_BYTES = 2**16
END_BYTES = 2**20  # after the end of an archive, so many bytes are checked
ADVICE = "write the tar file again"


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

    def write(stream: BinaryIO) -> None:
        places: Places = {}
        with tarfile.open(
            fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as archive:
            for member in members:
                source = folder / member
                files = [source] if source.is_file() else sorted(source.iterdir())
                places[member] = [_add(archive, file, folder) for file in files]
        write_index(tar, places, facts)

    tar.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(tar, write)


def _add(archive: tarfile.TarFile, file: Path, folder: Path) -> Place:
    """Append a file to a tar file."""
    name = str(PurePosixPath(file.relative_to(folder)))
    info = archive.gettarinfo(file, name)
    info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode = 0, 0, 0, "", "", 0o644
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    offset = archive.offset + len(header)
    with file.open("rb") as stream:
        archive.addfile(info, stream)
    return Place(name, offset, info.size, zlib.crc32(header[-tarfile.BLOCKSIZE :]))


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


def read_contents(tar: Path) -> tuple[set[str], dict[str, str]]:
    """Return what `write_shard` noted in the index of a tar file.

    Returns:
        the members, and the unreadable videos with the reasons.

    Raises:
        UserError: the index is missing or damaged.
    """
    file = tar.with_name(tar.name + INDEX_SUFFIX)
    with reading(file, advice=f"delete {tar}, and call the same command again"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(reason, str) for reason in content["faults"].values()):
            raise ValueError("not an index")
        return set(content["members"].keys()), content["faults"]


class _Headers(io.RawIOBase):
    """A tar file that rejects headers of many bytes, for which tarfile would allocate the memory."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        return self._stream.read(size)


def places_in(stream: BinaryIO) -> Places:
    """Return the byte ranges of the members of an open tar file; the images of a directory are one member.

    Raises:
        UserError: the file is not an uncompressed tar file, is truncated or damaged, or contains what has no
            byte range: links to clips, sparse files, two files of one name, and names outside of the archive.
    """
    path = getattr(stream, "name", "file")
    try:
        archive = tarfile.TarFile(
            fileobj=_Headers(stream), mode="r", encoding="utf-8", errors="surrogateescape"
        )
    except Exception as error:
        raise UserError(f"{path}: is not an uncompressed tar file ({describe(error)})") from None
    with archive, reading(path, advice=ADVICE):
        return _places(archive, stream, path)


def _places(archive: tarfile.TarFile, stream: BinaryIO, path: str) -> Places:
    length = stream.seek(0, 2)
    places: Places = {}
    names: set[str] = set()
    previous = -1
    while (info := archive.next()) is not None:
        if info.size < 0 or info.offset <= previous or archive.offset <= info.offset:
            raise UserError(f"{path}: the header at byte {info.offset} is damaged; {ADVICE}")
        previous = info.offset
        shown = f"{path}: {printable(info.name, 200)}"
        _check_kind(info, shown)
        if not info.isfile():
            continue
        if info.offset_data + info.size > length:
            raise UserError(f"{shown} is longer than the tar file, which may be truncated; {ADVICE}")
        name = member_name(info.name)
        if ".." in name.split("/") or not name:
            raise UserError(f"{shown} names a file outside of the archive; {ADVICE}")
        member = folder_of(name) if is_image(name) and folder_of(name) else name
        if name in names or (member in places and member in (name, places[member][0].name)):
            raise UserError(f"{shown} is in the tar file twice; expected one file of each name. {ADVICE}")
        names.add(name)
        stream.seek(info.offset_data - tarfile.BLOCKSIZE)
        header = zlib.crc32(stream.read(tarfile.BLOCKSIZE))
        places.setdefault(member, []).append(Place(name, info.offset_data, info.size, header))
    _check_end(stream, archive.offset, path)
    return places


def _check_kind(info: tarfile.TarInfo, shown: str) -> None:
    """Reject members that have no byte range. A link without a suffix may be a directory of images."""
    suffix = PurePosixPath(info.name).suffix.lower()
    if (info.islnk() or info.issym()) and suffix in {"", *VIDEO_SUFFIXES, *IMAGE_SUFFIXES}:
        raise UserError(
            f"{shown} is a link to {printable(info.linkname, 200)}; expected a file. Write the tar file with "
            "--dereference --hard-dereference"
        )
    if info.issparse():
        raise UserError(f"{shown} is stored as a sparse file; write the tar file without --sparse")


def _check_end(stream: BinaryIO, offset: int, path: str) -> None:
    """Check that a tar file ends at `offset`: tarfile takes a damaged header for the end.

    Raises:
        UserError: other data follows.
    """
    stream.seek(offset)
    rest = stream.read(END_BYTES)
    if rest[: tarfile.BLOCKSIZE].strip(b"\0"):
        raise UserError(f"{path}: the header at byte {offset} is damaged; {ADVICE}")
    if rest.strip(b"\0"):
        raise UserError(f"{path}: contains another archive after its end; join them with tar --concatenate")


def index_shards(tars: list[Path], video_suffixes: frozenset[str]) -> list[tuple[str, str, str]]:
    """Write the indexes of tar files and return their clips.

    The label of a clip is the text of a file beside it with the suffix `.cls` (as in WebDataset shards), or
    else the name of its directory. Images beside video files are no clips.

    Args:
        tars: the tar files.
        video_suffixes: suffixes of video files, in lower case; other files are not clips.

    Returns:
        (tar file, member, label) of every clip.

    Raises:
        UserError: a file is not an uncompressed tar file (see `places_in`), or a clip has no label.
    """
    rows = []
    for tar in tars:
        with reading(tar), tar.open("rb") as stream:
            members = places_in(stream)
            videos = {name for name in members if PurePosixPath(name).suffix.lower() in video_suffixes}
            folders = {folder_of(name) for name in videos}
            for member, places in members.items():
                is_folder = places[0].name != member
                is_clip = member not in folders if is_folder else member in videos
                if not is_clip:
                    continue
                stem = member if is_folder else str(PurePosixPath(member).with_suffix(""))
                sidecar = members.get(f"{stem}.cls")
                label = _label(stream, sidecar[0], tar) if sidecar else PurePosixPath(member).parent.name
                if not label:
                    raise UserError(
                        f"{tar}: {printable(member)} has no label; expected a directory with its name, or "
                        f"{printable(stem)}.cls"
                    )
                rows.append((str(tar), member, label))
        write_index(tar, members, {})
    return rows


def _label(stream: BinaryIO, place: Place, tar: Path) -> str:
    """Return the label in a `.cls` file.

    Raises:
        UserError: it is not one line of UTF-8 text.
    """
    with reading(f"{tar}: {printable(place.name)}", advice="expected one line of UTF-8 text"):
        stream.seek(place.offset)
        lines = stream.read(min(place.size, MAX_LABEL_BYTES)).decode("utf-8-sig").strip().splitlines()
        if len(lines) > 1 or place.size > MAX_LABEL_BYTES:
            raise ValueError("several lines")
        return lines[0].strip() if lines else ""
