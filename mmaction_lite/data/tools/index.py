"""Index tar files of clips, and list their clips in a table."""

import csv
from collections.abc import Sequence
from pathlib import Path

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.annotations.tables import format_rows
from mmaction_lite.data.sources.write_shards import index_shards
from mmaction_lite.errors import UserError, reading
from mmaction_lite.files import check_replaceable, write_atomically


def index(shards: Sequence[Path], out: Path, url: str | None = None) -> int:
    """Write an index beside each tar file, and a table of all their clips.

    Args:
        shards: the tar files.
        out: table to write (.csv). A file with other contents is not replaced.
        url: address of the folder to which the tar files will be uploaded. None lists local paths.

    Returns:
        number of clips.

    Raises:
        UserError: `out` does not end in .csv or is a file with other contents, or a tar file cannot be
            indexed.
    """
    if out.suffix != ".csv":
        raise UserError(f"{out}: the table is a CSV file; expected a name that ends in .csv")
    kind = "a table of clips in tar files"
    check_replaceable(out, kind, _lists_members, shards)
    if url is not None:
        at = {str(shard): f"{url.rstrip('/')}/{shard.name}" for shard in shards}
    else:
        at = {str(shard): str(shard.absolute()) for shard in shards}
    for shard in shards:
        if not shard.is_file():
            raise UserError(f"{shard}: no such file; expected an uncompressed tar file")
    found = index_shards(list(shards), VIDEO_SUFFIXES)
    rows = [(f"{at[tar]}/{member}", label) for tar, member, label in found]
    content = format_rows(out, rows)
    if out.exists() and out.read_bytes() != content:
        raise UserError(f"{out}: exists with other contents; delete the file, or choose another name")
    write_atomically(out, lambda file: file.write(content))
    return len(rows)


def _lists_members(file: Path) -> bool:
    """Whether a file is a table in which all clips are members of tar files."""
    with reading(file), file.open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    return header == ["path", "label"] and bool(rows) and all(".tar/" in row[0] for row in rows)
