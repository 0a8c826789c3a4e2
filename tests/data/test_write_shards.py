"""Indexes of tar files: every member has the right byte range, or one line says what is wrong."""

import io
import json
import struct
import tarfile
import time
from pathlib import Path

import pytest

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.sources.shards import read_packed
from mmaction_lite.data.sources.write_shards import index_shards, places_in, read_contents, write_shard
from mmaction_lite.errors import UserError

NAMES = [
    "a/1.mp4",
    "#class/clip: 50%, new.mp4",
    "Übung/U\u0308bung.mp4",
    "line\nbreak/tab\tname.mp4",
    "not utf-8 \udcff/a.mp4",
    f"long/{'n' * 251}.mp4",
    f"{'d' * 120}/{'e' * 120}/f.mp4",
    "quote\"d/it's.mp4",
    "folder.tar/b.mp4",
    "star*/c*.mp4",
    " space /d .mp4",
    "PaxHeaders/0.mp4",
    "-option/--x.mp4",
]


def tar_of(path: Path, *members: tuple[str | tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, "written"])
def test_every_name_reads_back(tmp_path, form) -> None:
    """Members keep their names, labels and contents in tar files of other programs and in our own."""
    tar = tmp_path / "0.tar"
    contents = {name: f"contents of clip {number}".encode() for number, name in enumerate(NAMES)}
    if form == "written":
        for name, data in contents.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        write_shard(tar, tmp_path, NAMES, {"faults": {}})
        written = json.loads((tmp_path / "0.tar.index.json").read_text())["members"]
    else:
        tar_of(tar, *contents.items(), form=form)
        written = None
    rows = index_shards([tar], VIDEO_SUFFIXES)
    if written is not None:
        assert json.loads((tmp_path / "0.tar.index.json").read_text())["members"] == written
    assert [(member, label) for _, member, label in rows] == [(n, Path(n).parent.name) for n in NAMES]
    for _, member, _ in rows:
        ((name, data),) = read_packed(f"{tar}/{member}")
        assert (name, data) == (f"{tar}/{member}", contents[member])


def test_equivalent_names_are_one_name(tmp_path) -> None:
    tar = tar_of(tmp_path / "0.tar", ("./a//1.mp4", b"1"), ("/b/2.mp4", b"2"), ("./c/./d/3.png", b"3"))
    assert [row[1:] for row in index_shards([tar], VIDEO_SUFFIXES)] == [
        ("a/1.mp4", "a"),
        ("b/2.mp4", "b"),
        ("c/d", "c"),
    ]
    for member, data in (("a/1.mp4", b"1"), ("b/2.mp4", b"2"), ("c/d", b"3")):
        assert read_packed(Path(tar) / member)[0][1] == data


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a/1.mp4", b"1"), ("./a/1.mp4", b"2")], r"a/1\.mp4 is in the tar file twice"),
        ([("a/b", b"1"), ("a/b/1.jpg", b"2")], r"a/b/1\.jpg is in the tar file twice"),
        ([("a/b/1.jpg", b"1"), ("a/b", b"2")], r"a/b is in the tar file twice"),
        ([("a/../1.mp4", b"1")], "names a file outside of the archive"),
        ([("a/1.mp4", b"1"), (member("b/1.mp4", tarfile.LNKTYPE, "a/1.mp4"), b"")], r"is a link to a/1\.mp4"),
        ([(member("b/1.jpg", tarfile.SYMTYPE, "/etc/passwd"), b"")], r"b/1\.jpg is a link to /etc/passwd"),
        ([(member("b/c", tarfile.SYMTYPE, "../a"), b"")], r"b/c is a link to \.\./a"),
    ],
)
def test_what_has_no_byte_range_of_its_own_is_an_error(tmp_path, members, message) -> None:
    tar = tar_of(tmp_path / "0.tar", *members)
    with pytest.raises(UserError, match=rf"^{tar}: .*{message}[^\n]*$"):
        index_shards([tar], VIDEO_SUFFIXES)
    assert not (tmp_path / "0.tar.index.json").exists()


def test_other_members_are_no_clips(tmp_path) -> None:
    tar = tar_of(
        tmp_path / "0.tar",
        (member("a", tarfile.DIRTYPE), b""),
        (member("a/pipe.mp4", tarfile.FIFOTYPE), b""),
        (member("a/device.mp4", tarfile.CHRTYPE), b""),
        (member("README.md", tarfile.SYMTYPE, "docs/README.md"), b""),
        ("a/notes.txt", b"text"),
        ("a/cover.jpg", b"beside a video"),
        ("a/1.mp4", b"clip"),
        ("__MACOSX/a/._1.jpg", b"resource fork"),
    )
    assert index_shards([tar], VIDEO_SUFFIXES) == [(str(tar), "a/1.mp4", "a")]


def header(name: str, size: int | bytes, kind: bytes = b"0") -> bytes:
    """A tar header with any size, which tarfile does not write."""
    field = b"%011o\0" % size if isinstance(size, int) else size
    block = bytearray(
        struct.pack("100s8s8s8s12s12s8s1s355x", name.encode(), b"", b"", b"", field, b"", b" " * 8, kind)
    )
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header("a/1.mp4", 2**33 - 1), "cannot be read|longer than the tar file"),
        (header("a/1.mp4", b"\xff" * 12), "damaged"),  # -1: tarfile of Python 3.11 repeats it forever
        (header("a/1.mp4", b"\xff" * 10 + b"\xfe\x00"), "damaged"),
        (header("a/1.mp4", b"\x80" + b"\xff" * 11), "cannot be read|longer than the tar file"),
        (header("x", 2**33 - 1, b"x") + bytes(2**12), "not an uncompressed tar file"),
        (header("x", b"\xff" * 12, b"x") + bytes(2**12), "not an uncompressed tar file"),
        (header("x", 2**30, b"L") + bytes(2**12), "not an uncompressed tar file"),
        (header("a/1.mp4", 4) + b"clip".ljust(512) + b"\1" * 512, "header at byte 1024 is damaged"),
        (header("a/1.mp4", 4) + b"clip".ljust(512) + b"\1" * 100, "header at byte 1024 is damaged"),
        (header("a/1.mp4", 4) + b"clip".ljust(512) + bytes(1024) + header("b", 0), "another archive after"),
        (header("a/1.mp4", 4) + b"cl", "longer than the tar file"),
        (b"", "not an uncompressed tar file"),
        (b"\x1f\x8b" + bytes(1000), "not an uncompressed tar file"),
    ],
)  # fmt: skip
def test_a_damaged_tar_file_is_one_line_at_once(tmp_path, data, message) -> None:
    tar = tmp_path / "0.tar"
    tar.write_bytes(data)
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"^{tar}: [^\n]*({message})[^\n]*$"):
        index_shards([tar], VIDEO_SUFFIXES)
    assert time.monotonic() - start < 2
    assert not (tmp_path / "0.tar.index.json").exists()


def test_a_sparse_file_is_an_error(tmp_path) -> None:
    info = tarfile.TarInfo("a/1.mp4")
    info.pax_headers = {"GNU.sparse.map": "0,4", "GNU.sparse.size": "4096"}
    tar = tar_of(tmp_path / "0.tar", (info, b"clip"))
    with pytest.raises(UserError, match=r"a/1\.mp4 is stored as a sparse file"):
        index_shards([tar], VIDEO_SUFFIXES)


@pytest.mark.parametrize("label", [b"\xff\xfe", b"one\ntwo", b" \n", b"x" * 70000])
def test_a_label_file_holds_one_line(tmp_path, label) -> None:
    tar = tar_of(tmp_path / "0.tar", ("1.mp4", b"clip"), ("1.cls", label))
    with pytest.raises(UserError, match=rf"^{tar}: 1\.(cls: cannot be read|mp4 has no label)[^\n]*$"):
        index_shards([tar], VIDEO_SUFFIXES)


def test_a_byte_order_mark_of_a_label_file_is_ignored(tmp_path) -> None:
    tar = tar_of(tmp_path / "0.tar", ("1.mp4", b"clip"), ("1.cls", "\ufeffgoing up\r\n".encode()))
    assert index_shards([tar], VIDEO_SUFFIXES) == [(str(tar), "1.mp4", "going up")]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"faults": {}}', '{"members": {}, "faults": {"a": 1}}', "[" * 100000]
)
def test_a_damaged_index_of_a_prepared_tar_file_is_one_line(tmp_path, text) -> None:
    (tmp_path / "0.tar.index.json").write_text(text)
    with pytest.raises(UserError, match=r"0\.tar\.index\.json: cannot be read [^\n]*delete [^\n]*0\.tar"):
        read_contents(tmp_path / "0.tar")


def test_places_are_those_of_the_contents(tmp_path) -> None:
    tar = tar_of(tmp_path / "0.tar", ("a/1.mp4", b"first"), ("a/2.mp4", b"second"))
    data = tar.read_bytes()
    with tar.open("rb") as stream:
        places = places_in(stream)
    assert [data[p.offset : p.offset + p.size] for [p] in places.values()] == [b"first", b"second"]
