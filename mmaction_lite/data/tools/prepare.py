"""Convert a data set so that it decodes faster: smaller frames, more keyframes, or JPEG files."""

import io
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from mmaction_lite.data.annotations.classes import CLASSES_FILE, write_classes
from mmaction_lite.data.annotations.samples import Samples, absolute
from mmaction_lite.data.annotations.tables import write_table
from mmaction_lite.data.loading.lifetime import require_main_guard
from mmaction_lite.data.loading.parallel import Engine, run_tasks
from mmaction_lite.data.loading.workers import IN_PROCESS, WorkerSettings
from mmaction_lite.data.sources.encoding import x264_options
from mmaction_lite.data.sources.faults import MispredictedError
from mmaction_lite.data.sources.resample import Size, crop_and_resize, short_side_size
from mmaction_lite.data.sources.source import Source, open_source
from mmaction_lite.data.sources.video import Video
from mmaction_lite.data.sources.write_shards import read_contents, write_shard
from mmaction_lite.data.tools.validate import read_splits, scanned_folders
from mmaction_lite.errors import UserError, VideoError, describe, printable, reading
from mmaction_lite.files import (
    LOCK,
    FolderLock,
    check_output_folder,
    check_unchanged,
    rewriting,
    write_atomically,
)
from mmaction_lite.settings import NonNegativeInt, PositiveInt, at_least, at_most, check_fields

Track = Callable[[Iterable["Prepared"], int, str], Iterable["Prepared"]]
TIME_BASE = Fraction(1, 90_000)
FRAME_RATE_OF_FOLDERS = 25.0
JPEG_QUALITY = 90
MAX_STEM_BYTES = 200  # the names of most file systems have at most 255, with checksum and suffix


@dataclass(frozen=True, kw_only=True)
class Form:
    """Format of the converted videos.

    Args:
        kind: "video" (H.264 in MP4, without sound) or "frames" (folders of JPEG files).
        short_side: short side in pixels to which larger videos are reduced. Smaller videos keep their size.
        keyframe_every: frames between keyframes, the largest number that a reader decodes to get one frame.
        crf: constant rate factor of x264, 0 to 51; smaller values give better quality and larger files.
        shard: clips per tar file; 0 writes one file per clip.
    """

    kind: Literal["video", "frames"] = "video"
    short_side: PositiveInt = 256
    keyframe_every: PositiveInt = 10
    crf: Annotated[int, at_least(0), at_most(51)] = 20
    shard: NonNegativeInt = 0

    def __post_init__(self):
        check_fields(self)


class Prepared(NamedTuple):
    """Result of one file; both fields are empty on success.

    Args:
        fault: why the video cannot be read.
        error: why no file can be written, such as a full disk.
    """

    fault: str = ""
    error: str = ""


def prepare(
    data: Path,
    out: Path,
    form: Form,
    track: Track,
    *,
    workers: WorkerSettings = IN_PROCESS,
    engine: Engine = "local",
) -> list[str]:
    """Convert every video of a data set, and write lists that make the result a data set.

    Frames keep their numbers and their times, so labels and segments stay valid. Complete files are not
    written again: after an interruption, the same call resumes and gives the same result.

    Args:
        data: see `data.annotations`.
        out: folder of the new data set.
        form: format of the converted videos.
        track: wraps an iterable to show progress: (iterable, total, title).
        workers: worker processes, and the time limit of one file.
        engine: "local", or "ray" for a Ray cluster with access to the same folders.

    Returns:
        one line for each video that cannot be read. These videos are not in the lists; `quarantine.jsonl`
        names them with the reasons.

    Raises:
        UserError: the annotations are invalid; `out` overlaps `data`, contains other files, or contains lists
            that were changed since an earlier call wrote them; or a file cannot be written.
    """
    require_main_guard()
    check_output_folder(out, [data])
    splits, out = read_splits(data), out.absolute()
    check_output_folder(out, [data], scanned_folders(splits.values()))
    _claim(out, form)
    with FolderLock(out):
        check_unchanged(out, _outputs(splits))
        sources = _targets(splits.values(), form)
        files = list(sources)
        shards = _shards(splits, sources, out, form)
        faults = {}
        for tar, clips in shards.items():
            if tar.exists():  # complete before an interruption; the files of its clips are deleted
                faults |= _faults_in(tar, clips, sources)
        packed = {file for tar, members in shards.items() if tar.exists() for file in members}
        files = [file for file in files if file not in packed]
        work = Prepare([absolute(file) for file in files], [str(out / sources[f]) for f in files], form)
        results = run_tasks(work, list(range(len(files))), workers, engine)
        for file, result in zip(files, track(results, len(files), f"preparing {data}"), strict=True):
            if result.error:
                raise UserError(f"{result.error}. Finished files are kept; the same command resumes")
            if result.fault:
                faults[file] = result.fault
        _pack(shards, sources, faults, out)
        with rewriting(out, _outputs(splits)):
            _write_lists(splits, sources, faults, out)
        return list(faults.values())


def _outputs(splits: Iterable[str]) -> list[str]:
    """Return the names of the files that a preparation of these splits replaces."""
    return [*(f"{name}.csv" for name in splits), CLASSES_FILE, "quarantine.jsonl"]


def _faults_in(tar: Path, clips: list[Path], sources: dict[Path, str]) -> dict[Path, str]:
    """Return the unreadable videos among the clips of a complete tar file, with the reasons.

    Raises:
        UserError: the tar file contains other clips, because the data set has changed since it was written.
    """
    members, noted = read_contents(tar)
    faults = {Path(file): reason for file, reason in noted.items()}
    if faults.keys() - set(clips) or members != {sources[clip] for clip in clips if clip not in faults}:
        raise UserError(
            f"{tar}: contains other clips than the data set, which has changed since the preparation was "
            "interrupted. Use another folder"
        )
    return faults


def _pack(
    shards: dict[Path, list[Path]], sources: dict[Path, str], faults: dict[Path, str], out: Path
) -> None:
    """Move the converted clips into tar files, and update their places in `sources`."""
    for tar, members in shards.items():
        sound = [file for file in members if file not in faults]
        if not tar.exists():
            found = {str(file): faults[file] for file in members if file in faults}
            write_shard(tar, out, [sources[file] for file in sound], {"faults": found})
        for file in sound:
            _remove(out / sources[file])
            sources[file] = f"{tar.relative_to(out)}/{sources[file]}"


def _write_lists(
    splits: dict[str, Samples], sources: dict[Path, str], faults: dict[Path, str], out: Path
) -> None:
    """Write `<split>.csv`, `classes.txt` and `quarantine.jsonl`."""
    for name, samples in splits.items():
        chosen = [i for i in range(len(samples)) if samples.path(i) not in faults]
        write_table(out / f"{name}.csv", samples, chosen, [sources[samples.path(i)] for i in chosen])
    write_classes(out / CLASSES_FILE, splits["train"].classes)
    lines = [json.dumps({"path": str(file), "reason": reason}) + "\n" for file, reason in faults.items()]
    content = "".join(lines).encode()
    write_atomically(out / "quarantine.jsonl", lambda stream: stream.write(content))


@dataclass(frozen=True)
class Prepare:
    """Task of a worker: convert one video.

    Args:
        sources: paths of the videos.
        targets: path of the result for each source.
        form: format of the results.
    """

    sources: list[str]
    targets: list[str]
    form: Form

    def __call__(self, number: int) -> Prepared:
        """Convert `sources[number]` to `targets[number]`, unless the result exists."""
        source, target = Path(self.sources[number]), Path(self.targets[number])
        if target.exists():
            return Prepared()
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove(part)  # left by a killed process
            try:
                self._write(source, part)
            except MispredictedError:  # the retry uses the order of frames that was found
                _remove(part)
                self._write(source, part)
            part.rename(target)
            return Prepared()
        except VideoError as error:
            return Prepared(fault=str(error))
        except UserError:
            raise
        except (OSError, FFmpegError) as error:
            return Prepared(error=f"{target}: could not be written ({error.strerror or error})")
        except Exception as error:
            return Prepared(fault=f"{source}: cannot be converted ({describe(error)})")
        finally:
            _remove(part)

    def _write(self, source: Path, part: Path) -> None:
        before = _state(source)
        with open_source(source) as video:
            (_write_video if self.form.kind == "video" else _write_frames)(video, part, self.form)
        if _state(source) != before:
            raise VideoError(f"{source}: was changed while it was read; call the same command again")

    def failed(self, number: int, reason: str) -> Prepared:
        """Return the result of a video that exceeded the time limit or crashed its process."""
        return Prepared(fault=f"{self.sources[number]}: {reason}")


def _claim(out: Path, form: Form) -> None:
    """Create the folder `out`, or check that an interrupted call with the same `form` created it.

    Raises:
        UserError: the folder cannot be created, or has other contents.
    """
    file, text = out / "form.txt", f"{form}\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be created ({error.strerror}). Use another folder") from None
    if file.exists():
        with reading(file, advice="use another folder"):
            found = file.read_text(encoding="utf-8")
        if found != text:
            raise UserError(
                f"{out}: holds {printable(found.strip(), 200)}; expected {form}. Use another folder"
            )
    elif any(entry.name != LOCK for entry in out.iterdir()):
        raise UserError(
            f"{out}: is not empty; expected a new folder or an interrupted preparation. Use another folder"
        )
    else:
        write_atomically(file, lambda stream: stream.write(text.encode()))


def _shards(
    splits: dict[str, Samples], sources: dict[Path, str], out: Path, form: Form
) -> dict[Path, list[Path]]:
    """Return the tar files to write, each with the videos that it will hold; empty if `form.shard` is 0."""
    if not form.shard:
        return {}
    shards: dict[Path, list[Path]] = {}
    left = dict.fromkeys(sources)
    for name, samples in splits.items():
        own = [file for file in dict.fromkeys(map(samples.path, range(len(samples)))) if file in left]
        for number, first in enumerate(range(0, len(own), form.shard)):
            shards[out / "shards" / f"{name}-{number:05}.tar"] = own[first : first + form.shard]
        for file in own:
            del left[file]
    return shards


def _targets(splits: Iterable[Samples], form: Form) -> dict[Path, str]:
    """Return the path of every converted video relative to the new folder, the same on every run.

    Two videos never have the same path, whatever the names of their files and folders have in common.
    """
    targets: dict[Path, str] = {}
    taken: dict[str, str] = {}
    for samples in splits:
        for sample in range(len(samples)):
            file = samples.path(sample)
            if file in targets:
                continue
            source, number = os.path.normpath(absolute(file)), 0
            while taken.setdefault(target := _target(samples, sample, form, number), source) != source:
                number += 1  # equal checksums
            targets[file] = target
    return targets


def _target(samples: Samples, sample: int, form: Form, number: int) -> str:
    """Return a path of a converted video; `number` tells videos with equal paths apart."""
    listed = Path(samples.paths[sample])
    path = Path(os.path.normpath(samples.path(sample)))
    try:
        inside = path.relative_to(Path(os.path.normpath(samples.root)))
    except ValueError:
        inside = Path(listed.name)
    # The names of two files may differ only in the folder or the suffix, such as clip.avi and clip.mp4.
    mark = f"{zlib.crc32(os.fsencode(str(path.absolute()))):08x}{f'-{number}' if number else ''}"
    stem = (inside.stem if inside.suffix else inside.name).replace("*", "")
    while len(os.fsencode(stem)) > MAX_STEM_BYTES:
        stem = stem[:-1]
    target = inside.with_name(f"{stem}_{mark}{'.mp4' if form.kind == 'video' else ''}")
    # Lists of the new data set are UTF-8 text with one clip per line, whatever the old names contain.
    return "".join(c if c.isprintable() else "_" for c in str(Path("videos") / target))


def _state(path: Path) -> tuple[int, int] | None:
    """Return a value that changes when a file or directory does; None for members of archives and URLs."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _sized(size: Size, form: Form) -> Size:
    """Return (height, width) of the converted frames; even for videos, as H.264 requires."""
    height, width = size if min(size) <= form.short_side else short_side_size(size, form.short_side)
    if form.kind == "frames":
        return height, width
    return max(2, height // 2 * 2), max(2, width // 2 * 2)


def _rate(video: Source) -> float:
    return FRAME_RATE_OF_FOLDERS if math.isnan(video.fps) else video.fps


def _each_frame(video: Source, form: Form) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yield (index, time in seconds, uint8 (h, w, 3)) of every resized frame; holds one frame in memory."""
    size = _sized(video.size, form)
    if isinstance(video, Video):
        for index, seconds, pixels in video.walk():
            yield index, seconds, crop_and_resize(pixels[None], None, size)[0]
    else:
        for index in range(len(video)):
            yield index, index / _rate(video), video.frames([index], None, size)[0]


def _write_video(video: Source, target: Path, form: Form) -> None:
    height, width = _sized(video.size, form)
    rate = Fraction(_rate(video))
    reformatter = VideoReformatter()
    # The prefix keeps FFmpeg from taking a colon in the path for a protocol.
    with av.open(f"file:{target}", "w", format="mp4") as container:
        options = x264_options(crf=str(form.crf), g=str(form.keyframe_every), sc_threshold="0")
        stream = container.add_stream("libx264", rate=rate.limit_denominator(1001), options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # Workers run in parallel already, and one thread gives the same bytes on every machine.
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = TIME_BASE

        for _, seconds, pixels in _each_frame(video, form):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = reformatter.reformat(frame, format="yuv420p", threads=1)
            frame.pts, frame.time_base = round(seconds / TIME_BASE), TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_frames(video: Source, target: Path, form: Form) -> None:
    target.mkdir()
    for index, _, pixels in _each_frame(video, form):
        # Encode in memory: when Pillow writes to a full disk, it drops the last bytes without an error.
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
        (target / f"img_{index + 1:05}.jpg").write_bytes(stream.getbuffer())


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)
