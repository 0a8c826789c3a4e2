"""Validate a data set before training: find unreadable files, and summarize sizes, lengths and classes."""

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmaction_lite.data.annotations.classes import CLASSES_FILE, write_classes
from mmaction_lite.data.annotations.groups import shared_groups
from mmaction_lite.data.annotations.samples import Samples, absolute, is_remote
from mmaction_lite.data.annotations.splits import Split, read_split
from mmaction_lite.data.annotations.tables import write_table
from mmaction_lite.data.loading.lifetime import require_main_guard
from mmaction_lite.data.loading.parallel import run_tasks
from mmaction_lite.data.loading.workers import IN_PROCESS, WorkerSettings
from mmaction_lite.data.sources.frames import split_pattern
from mmaction_lite.data.sources.resample import Size
from mmaction_lite.data.sources.source import open_sample
from mmaction_lite.data.tools.cleaned import KEY, SUMMARY, split_checksum
from mmaction_lite.data.tools.fingerprints import fingerprint, similar_pairs
from mmaction_lite.errors import MissingSplitError, UserError, VideoError, printable, reading
from mmaction_lite.files import (
    LOCK,
    FolderLock,
    check_output_folder,
    check_unchanged,
    rewriting,
    write_atomically,
    writing,
)

Track = Callable[[Iterable["Checked"], int, str], Iterable["Checked"]]
RECORD, QUARANTINE, PICTURE = "checked.jsonl", "quarantine.jsonl", "classes.png"


class Checked(NamedTuple):
    """Result of one sample.

    Args:
        length: number of frames.
        size: (height, width) of the frames.
        fps: frames per second; NaN if unknown.
        codec: name of the codec.
        fault: why the sample cannot be read; empty if it can.
        note: an unusual property of a readable sample; empty if there is none.
        fingerprint: of the first frame; see `fingerprints`.
    """

    length: int = 0
    size: Size = (0, 0)
    fps: float = 0.0
    codec: str = ""
    fault: str = ""
    note: str = ""
    fingerprint: int = 0


@dataclass(frozen=True)
class Report:
    """Result of the validation of a data set.

    Args:
        splits: statistics of each split, by name.
        faults: one line for each sample that cannot be read.
        notes: one line for each unusual property that does not prevent training.
    """

    splits: dict[str, dict[str, Any]]
    faults: list[str]
    notes: list[str]


def validate(
    data: Path,
    track: Track,
    out: Path | None = None,
    workers: WorkerSettings = IN_PROCESS,
) -> Report:
    """Open every sample of every split, and decode its first, middle and last frame.

    Args:
        data: see `data.annotations`.
        track: wraps an iterable to show progress: (iterable, total, title).
        out: folder of the results; None writes no files. `<split>.csv` lists the readable samples, so that
            the folder is a data set. `quarantine.jsonl` lists the other samples with the reasons,
            `summary.json` holds the statistics, `classes.png` shows the number of clips of each class. An
            interrupted validation resumes from this folder.
        workers: worker processes, and the time limit of one file.

    Raises:
        UserError: the annotations are invalid; or `out` cannot be written, overlaps `data`, contains other
            files, or contains lists that were changed since an earlier validation wrote them.
    """
    require_main_guard()
    if out:
        check_output_folder(out, [data])
    splits = read_splits(data)
    if out:
        check_output_folder(out, [data], scanned_folders(splits.values()))
    with _Record(out) if out else nullcontext() as record:
        if out:
            check_unchanged(out, _outputs(splits))
        checked = {name: _checked(samples, record, track, workers) for name, samples in splits.items()}
        facts, faults, notes = {}, [], [*_annotation_notes(splits), *_duplicates(splits)]
        for name, samples in splits.items():
            facts[name] = _facts(samples, [video for video in checked[name] if not video.fault])
            faults += [video.fault for video in checked[name] if video.fault]
            notes += _clip_notes(samples, checked[name])
            empty = [samples.classes[i] for i in np.flatnonzero(samples.counts() == 0)]
            if empty:
                notes.append(f"{samples.source}: no clips of {len(empty)} classes: {', '.join(empty[:5])}")
            if name != "train":
                notes += shared_groups(splits["train"], samples, name, with_clips=False)
                notes += _look_alikes(splits["train"], samples, checked["train"], checked[name])
        report = Report(facts, faults, notes)
        if out:
            with rewriting(out, _outputs(splits)):
                _write(out, splits, checked, report)
    return report


def _clip_notes(samples: Samples, checked: Sequence[Checked]) -> list[str]:
    """Return one line for each distinct note; all frame folders of a data set often have the same."""
    clips: dict[str, list[int]] = {}
    for sample, video in enumerate(checked):
        if video.note:
            clips.setdefault(video.note, []).append(sample)
    return [
        f"{samples.place(first)}: {note}" + (f" (and {len(others)} other clips)" if others else "")
        for note, (first, *others) in clips.items()
    ]


def scanned_folders(splits: Iterable[Samples]) -> list[Path]:
    """Return the class folders among the splits; other splits are list files."""
    return [samples.root for samples in splits if samples.lines is None]


def _outputs(splits: Iterable[str]) -> list[str]:
    """Return the names of the files that a validation of these splits replaces."""
    return [*(f"{name}.csv" for name in splits), CLASSES_FILE, QUARANTINE, SUMMARY, PICTURE]


def _checked(
    samples: Samples, record: "_Record | None", track: Track, workers: WorkerSettings
) -> list[Checked]:
    """Return the result of every sample; check the samples that are not in `record`."""
    known = record.known(samples) if record else {}
    missing = [sample for sample in range(len(samples)) if sample not in known]
    results = run_tasks(Check(samples), missing, workers)
    results = track(results, len(missing), f"checking {samples.source}")
    for sample, result in zip(missing, results, strict=True):
        known[sample] = result
        if record:
            record.add(samples, sample, result)
    return [known[sample] for sample in range(len(samples))]


def read_splits(data: Path) -> dict[str, Samples]:
    """Read the splits that exist, by name. Two splits that use the same list count once.

    Raises:
        UserError: the annotations are invalid.
    """
    train = read_split(data, "train")
    splits: dict[str, Samples] = {"train": train}
    others: tuple[Split, ...] = ("val", "test")
    for split in others if data.is_dir() else ():
        with suppress(MissingSplitError):
            samples = read_split(data, split, train.classes)
            if all(samples.source != known.source for known in splits.values()):
                splits[split] = samples
    return splits


def describe(facts: dict[str, Any]) -> str:
    """Return the statistics of one split as one line."""
    sides = [f"{name} {_most_common(facts[name])}" for name in ("sizes", "fps", "codecs") if facts[name]]
    counts, length = facts["videos_per_class"], facts["frames"]
    videos = "{min} to {max} videos" if counts["min"] < counts["max"] else "{min} videos each"
    frames = "{min} to {max} frames (median {median:g})" if length["min"] < length["max"] else "{min} frames"
    return (
        f"{facts['videos']} {'video' if facts['videos'] == 1 else 'videos'} of {facts['source']}, "
        f"{facts['unreadable']} unreadable; {facts['classes']} classes of {videos.format(**counts)}; "
        f"{', '.join([frames.format(**length), *sides])}"
    )


@dataclass(frozen=True)
class Check:
    """Task of a worker: check one sample.

    Args:
        samples: the split.
    """

    samples: Samples

    def __call__(self, number: int) -> Checked:
        """Open sample `number`, and decode its first, middle and last frame."""
        try:
            with open_sample(self.samples, number) as source:
                last = len(source) - 1
                first = source.frames(sorted({0, last // 2, last}))[0]
                note = getattr(source, "note", "")
                return Checked(
                    len(source), source.size, source.fps, source.codec, "", note, fingerprint(first)
                )
        except VideoError as error:
            return Checked(fault=str(error))

    def failed(self, number: int, reason: str) -> Checked:
        """Return the result of a sample that exceeded the time limit or crashed its process."""
        return Checked(fault=f"{self.samples.name(number)}: {reason}")


class _Record:
    """File of the results so far. A result belongs to one state of the video; changed videos are checked."""

    def __init__(self, out: Path):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{out}: cannot be created ({error.strerror}). Use another --out") from None
        self.file = out / RECORD
        if not self.file.exists() and any(file.name != LOCK for file in out.iterdir()):
            raise UserError(
                f"{out}: is not empty; expected a new folder or that of an earlier check. Use another --out"
            )
        self.lock = FolderLock(out)
        self.lock.acquire()
        with reading(self.file, advice="move the file, or use another --out"):
            exists = self.file.exists()
            text = self.file.read_text(encoding="utf-8", errors="surrogateescape") if exists else ""
        self.rows: dict[tuple[str, str], Checked] = {}
        for line in text.splitlines():
            try:
                name, state, length, size, *rest = json.loads(line)
                self.rows[name, state] = _checked_row(length, size, *rest)
            except Exception:  # a killed process left an incomplete line, or the file was edited
                continue
        if text and not text.startswith('["'):
            raise UserError(f"{self.file}: is no record of an earlier check. Move it, or use another --out")
        with writing(self.file):
            self.lines = self.file.open("a", encoding="utf-8", errors="surrogateescape", buffering=1)
            if text and not text.endswith("\n"):
                self.lines.write("\n")

    def __enter__(self) -> "_Record":
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):  # on a full disk, which `add` has reported
            self.lines.close()
        self.lock.release()

    def known(self, samples: Samples) -> dict[int, Checked]:
        """Return the stored results of `samples`, by number."""
        found = ((i, self.rows.get((samples.name(i), _state(samples.path(i))))) for i in range(len(samples)))
        return {sample: checked for sample, checked in found if checked is not None}

    def add(self, samples: Samples, sample: int, checked: Checked) -> None:
        """Append one result to the file."""
        row = [samples.name(sample), _state(samples.path(sample)), *checked]
        with writing(
            self.file, "free space on the disk; results so far are kept, and the same command resumes"
        ):
            self.lines.write(json.dumps(row) + "\n")


def _checked_row(length: Any, size: Any, *rest: Any) -> Checked:
    """Return the result in a row of the record.

    Raises:
        TypeError, ValueError, OverflowError: a value has another type or is too large; the file was edited.
    """
    height, width = size
    fps, codec, fault, note, *number = rest  # earlier versions wrote no fingerprint
    checked = Checked(length, (height, width), float(fps), codec, fault, note, *number)
    numbers, texts = (length, height, width, checked.fingerprint), (codec, fault, note)
    if not all(isinstance(x, int) for x in numbers) or not all(isinstance(x, str) for x in texts):
        raise TypeError("not a row of the record")
    if not 0 <= checked.fingerprint < 1 << 64:
        raise ValueError("not a fingerprint")
    return checked


def _state(path: Path) -> str:
    """Return a text that changes when the file changes, or the tar file that contains it."""
    tar = next((folder for folder in path.parents if folder.suffix == ".tar"), None)
    try:
        status = (tar or split_pattern(path)[0]).stat()
    except (OSError, ValueError):  # ValueError: the path contains a null character
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _annotation_notes(splits: dict[str, Samples]) -> list[str]:
    """Return the notes on the annotations of all splits, each once."""
    notes = [note for samples in splits.values() for note in samples.notes]
    for samples in splits.values():
        paths = map(samples.path, range(len(samples)))
        if remote := [absolute(path) for path in paths if is_remote(path)]:
            notes.append(f"{samples.source}: {len(remote)} clips are on servers, such as {remote[0]}")
    return list(dict.fromkeys(notes))


def _duplicates(splits: dict[str, Samples]) -> list[str]:
    """Return one line for each split with duplicates, and for each pair of splits that share samples."""
    lines = []
    names = list(splits)
    places = {
        split: {absolute(samples.name(i)): i for i in range(len(samples))}
        for split, samples in splits.items()
    }
    for number, one in enumerate(names):
        if twice := len(splits[one]) - len(places[one]):
            lines.append(f"{splits[one].source}: {twice} samples are listed more than once")
        for other in names[number + 1 :]:
            shared = sorted(places[one].keys() & places[other].keys())
            if shared:
                at = [splits[split].place(places[split][shared[0]]) for split in (one, other)]
                lines.append(
                    f"{len(shared)} samples are both in {one} and in {other}, the first at {' and '.join(at)}"
                )
    return lines


def _look_alikes(
    train: Samples, other: Samples, checked_train: list[Checked], checked: list[Checked]
) -> list[str]:
    """Return a note on the clips of a split that begin with nearly the same picture as training clips."""
    known, own = ([clip.fingerprint for clip in clips] for clips in (checked_train, checked))
    pairs = [(i, j) for i, j in similar_pairs(known, own) if train.path(i) != other.path(j)]
    if not pairs:
        return []
    names = printable(other.name(pairs[0][1])), printable(train.name(pairs[0][0]))
    return [
        f"{len(pairs)} of {len(other)} clips of {other.source} begin with nearly the same picture as a "
        f"training clip, such as {names[0]} and {names[1]}; check that they are not copies or parts of the "
        "same recording"
    ]


def _facts(samples: Samples, readable: list[Checked]) -> dict[str, Any]:
    counts = samples.counts()
    lengths = [video.length for video in readable] or [0]
    return {
        "source": samples.source,
        "videos": len(samples),
        "unreadable": len(samples) - len(readable),
        "classes": len(counts),
        "videos_per_class": {"min": int(counts.min()), "max": int(counts.max())},
        "frames": {"min": min(lengths), "median": float(np.median(lengths)), "max": max(lengths)},
        "sizes": Counter(f"{video.size[1]}x{video.size[0]}" for video in readable),
        # Folders of frames have no frame rate.
        "fps": Counter(f"{video.fps:g}" for video in readable if not math.isnan(video.fps)),
        "codecs": Counter(video.codec for video in readable),
    }


def _write(out: Path, splits: dict[str, Samples], checked: dict[str, list[Checked]], report: Report) -> None:
    unreadable = []
    for name, samples in splits.items():
        sound = [i for i, video in enumerate(checked[name]) if not video.fault]
        write_table(out / f"{name}.csv", samples, sound, [absolute(samples.path(i)) for i in sound])
        unreadable += [
            {"path": samples.name(i), "listed": samples.place(i), "reason": video.fault}
            for i, video in enumerate(checked[name])
            if video.fault
        ]
    # List all classes in their order, including those without a readable clip.
    write_classes(out / CLASSES_FILE, splits["train"].classes)
    lines = "".join(json.dumps(row) + "\n" for row in unreadable)
    originals = {name: split_checksum(samples) for name, samples in splits.items()}
    facts = {"splits": report.splits, "notes": report.notes, KEY: originals}
    summary = json.dumps(facts, indent=1) + "\n"
    for file, text in ((QUARANTINE, lines), (SUMMARY, summary)):
        data = text.encode("utf-8", "surrogateescape")
        write_atomically(out / file, lambda stream, data=data: stream.write(data))
    picture = _histogram(splits)
    write_atomically(out / PICTURE, lambda stream: stream.write(picture))


def _histogram(splits: dict[str, Samples]) -> bytes:
    """Return a bar chart as PNG: clips per class, the largest class first, one color per split."""
    from matplotlib.figure import Figure

    classes = splits["train"].classes
    order = np.argsort(-splits["train"].counts(), kind="stable")
    figure = Figure(figsize=(max(6.0, min(24.0, 0.25 * len(classes))), 4.0), layout="constrained")
    axes = figure.add_subplot()
    below = np.zeros(len(classes))
    for name, samples in splits.items():
        counts = samples.counts()[order]
        axes.bar(
            range(len(classes)), counts, bottom=below, label=name, width=1.0 if len(classes) > 60 else 0.8
        )
        below += counts
    axes.set_ylabel("clips")
    axes.margins(x=0.01)
    if len(classes) <= 60:
        names = [_drawable(classes[i], i) for i in order.tolist()]
        axes.set_xticks(range(len(classes)), names, rotation=90, fontsize=8, parse_math=False)
    else:
        axes.set_xlabel(f"{len(classes)} classes, by the number of training clips")
    if len(splits) > 1:  # beside the axes: inside, the legend would cover bars
        figure.legend(loc="outside right upper", frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _drawable(name: str, number: int) -> str:
    """Return a class name that the font of the picture contains, or the number of the class."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    characters = get_font(findfont(FontProperties())).get_charmap()
    name = printable(name, 40)
    return name if all(ord(character) in characters for character in name) else f"class {number}"


def _most_common(counted: Counter[str]) -> str:
    shown = [f"{value} ({count})" for value, count in counted.most_common(3)]
    return " ".join(shown) + (f" and {len(counted) - 3} more" if len(counted) > 3 else "")
