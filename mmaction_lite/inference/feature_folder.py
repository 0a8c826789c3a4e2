"""Write the features of many videos to a folder, one file per video, resumable and over several processes."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from mmaction_lite.data.annotations.samples import is_remote
from mmaction_lite.data.loading.loader import Fault, rank_slice
from mmaction_lite.data.loading.workers import IN_PROCESS, WorkerSettings
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.errors import UserError, printable
from mmaction_lite.files import FolderLock, check_features_fit, describe_bytes, writing
from mmaction_lite.inference.feature_files import (
    Features,
    Format,
    check_format,
    difference,
    read_info,
    save_features,
)
from mmaction_lite.inference.feature_reading import Reading, plan_parts
from mmaction_lite.inference.features import Extractor

Track = Callable[[Iterable[Features | Fault], int, str], Iterable[Features | Fault]]


class WrittenFile(NamedTuple):
    """The features file of one video.

    Args:
        video: name of the video.
        file: path of the file.
        num_rows: rows of the file; None for a file of an earlier run.
        note: which frames cannot be read.
    """

    video: str
    file: Path
    num_rows: int | None
    note: str = ""


def file_names(names: Sequence[str], format: Format, root: Path | None = None) -> list[str]:
    """Return the names of the features files of videos: their paths below a common folder, and the suffix.

    Args:
        names: paths or addresses of the videos, with the segment, if any.
        format: suffix of the files.
        root: the common folder, if it contains all videos; None: the deepest folder that contains all.
    """
    paths = [_local_path(name) for name in names]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    if root is not None and Path(common).is_relative_to(root.absolute()):
        common = str(root.absolute())
    found: dict[str, str] = {}
    for name, path in zip(names, paths, strict=True):
        # Characters that some file systems do not allow; patterns of frames contain `*`.
        stem = re.sub(r'[*?:"<>|\x00-\x1f]', "_", os.path.relpath(path, common))
        number = 1
        while found.setdefault(f"{stem}{f'~{number}' if number > 1 else ''}.{format}", name) != name:
            number += 1
    files = {name: file for file, name in found.items()}
    return [files[name] for name in names]


def write_features(
    extractor: Extractor,
    reading: Reading,
    out: Path,
    *,
    format: Format = "npz",
    root: Path | None = None,
    workers: WorkerSettings = IN_PROCESS,
    context: DistributedContext | None = None,
    track: Track | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[list[WrittenFile], list[Fault]]:
    """Write one features file per video. Files of an earlier run with the same settings are kept.

    Args:
        extractor: model and settings.
        reading: the videos; a video that is listed twice has one file.
        out: folder, which is created.
        format: suffix of the files.
        root: see `file_names`.
        workers: decoding worker processes.
        context: of several processes, each writes its slice of the files.
        track: wraps the results to show progress: (iterable, total, title).
        report: called with a line about the size before the work starts.

    Returns:
        the files of all processes, kept ones included, and the videos that cannot be read.

    Raises:
        UserError: a file in `out` has other settings or is not a features file; another process writes to the
            folder; or the disk is too small or full.
    """
    check_format(out, format)
    names = reading.names
    files = dict(zip(file_names(names, format, root), range(len(names)), strict=True))
    paths = [out / file for file in files]
    numbers = list(files.values())
    rank, world_size = (0, 1) if context is None else (context.rank, context.world_size)
    own = range(len(paths))[rank_slice(len(paths), rank, world_size)]
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out) if rank == 0 else nullcontext():
        kept = {i for i in own if _is_finished(paths[i], extractor.info)}
        left = [i for i in own if i not in kept]
        parts = plan_parts(reading, [numbers[i] for i in left], workers)
        num_rows = sum(part.num_rows for part in parts)
        _check_size(extractor, out, (num_rows, len(left), len(kept)), context, report)
        results = extractor.extract(reading, parts, workers)
        if track is not None:
            results = track(results, len(left), f"features of {len(left)} videos")
        written = {i: WrittenFile(video=names[numbers[i]], file=paths[i], num_rows=None) for i in kept}
        faults = []
        for i, result in zip(left, results, strict=True):
            if isinstance(result, Fault):
                faults.append(result)
                continue
            with writing(paths[i]):
                paths[i].parent.mkdir(parents=True, exist_ok=True)
            save_features(paths[i], result)
            written[i] = WrittenFile(
                video=result.videos[0], file=paths[i], num_rows=len(result), note=result.note
            )
        mine = [written[i] for i in sorted(written)]
        written_by = [(mine, faults)] if context is None else context.all_gather((mine, faults))
    return [file for part, _ in written_by for file in part], [
        fault for _, part in written_by for fault in part
    ]


def _local_path(name: str) -> str:
    """Return the path of a video, with an address as a path that begins with its scheme."""
    return "/" + re.sub(r":/+", "/", name) if is_remote(name) else os.path.abspath(name)  # noqa: PTH100


def _is_finished(path: Path, info: dict) -> bool:
    """Whether a file exists and has the same settings.

    Raises:
        UserError: it has other settings, or is not a features file.
    """
    if not os.path.lexists(path):
        return False
    found = read_info(path)
    if found["fingerprint"] != info["fingerprint"]:
        raise UserError(
            f"{printable(str(path))}: holds {difference(found, info)}; use another folder, or delete the file"
        )
    return True


def _check_size(
    extractor: Extractor,
    out: Path,
    counts: tuple[int, int, int],
    context: DistributedContext | None,
    report: Callable[[str], None] | None,
) -> None:
    """Report the size of the files to write, and check that the disk has room for them.

    Args:
        extractor: model and settings.
        out: the folder.
        counts: of this process: rows to write, videos to read, and files of an earlier run.
        context: the other processes.
        report: called with a line about the size.

    Raises:
        UserError: the disk is too small.
    """
    parts = [counts] if context is None else context.all_gather(counts)
    rows, num_left, num_kept = (sum(column) for column in zip(*parts, strict=True))
    size = rows * extractor.row_bytes
    shape = " × ".join(map(str, extractor.info["shape"]))
    text = f"{rows} rows of {shape} {extractor.info['dtype']}, {describe_bytes(size)}"
    advice = "use another disk, --half, another --pool or a longer --stride"
    check_features_fit(out, size, text, advice)
    if report is not None and (context is None or context.is_main_process):
        report(f"{num_left} videos, {num_kept} finished earlier; {text}")
