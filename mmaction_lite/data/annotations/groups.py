"""Groups of clips that show the same recording: they must not be divided between training and validation.

Clips that were cut from one video, or that one person performed in one room, look alike. A network that was
trained on some of them recognizes the others by their background, and the measured accuracy is too high.
The groups come from the column `group` of a table, or from the names of the files, as data sets publish them.
"""

import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mmaction_lite.data.annotations.samples import Samples

_SUFFIXES = re.compile(r"(\.[A-Za-z]\w{1,4})+$")
LONGEST_NAME = 255  # characters of a file name; the search for suffixes in longer text takes long
LEAST_MATCH = 0.9  # share of the names of a data set that must have a general pattern


class Pattern(NamedTuple):
    """A form of file names that tells which clips belong together.

    Args:
        title: data set and an example, for messages.
        names: matches the whole name without suffix; its group 1 identifies the recording. Groups 2 and 3, if
            any, are the beginning and the end of the clip in the recording; the beginning must be smaller.
        has_class: whether the class of the clip follows the recording in group 1.
    """

    title: str
    names: re.Pattern[str]
    has_class: bool = False


# Users do not choose names of these forms, so they count wherever they occur.
PUBLISHED = (
    Pattern("UCF101, v_Class_g01_c01", re.compile(r"(v_\w+_g\d+)_c\d+")),
    Pattern(
        "HMDB51, source_class_u_nm_np1_fr_med_3",
        re.compile(r"(.+)_[a-z]_[a-z]{2}_np\d+_[a-z]{2}_[a-z]{3,4}_\d+"),
        has_class=True,
    ),
    Pattern("NTU RGB+D, S001C001P001R001A001", re.compile(r"S\d{3}C\d{3}(P\d{3})R\d{3}A\d{3}.*")),
    Pattern("KTH, person01_class_d1", re.compile(r"(person\d+)_.+_d\d.*")),
    Pattern("Kinetics, a YouTube id of 11 characters and times", re.compile(r"([\w-]{11})_\d{6}_\d{6}")),
)
# Names of these forms count if nearly all names of a data set have the form.
GENERAL = (
    Pattern("ActivityNet, v_ and a YouTube id", re.compile(r"v_([\w-]{11})(?:[_-].*)?")),
    Pattern("a YouTube id and the number of a clip", re.compile(r"([\w-]{11})_\d{4,6}")),
    Pattern(
        "video_start_end, in frames or seconds", re.compile(r"(.+?)[_-](\d+(?:\.\d+)?)[_-](\d+(?:\.\d+)?)")
    ),
    Pattern(
        "video-Scene-001, video_part2 or video_clip2",
        re.compile(r"(.+?)[-_ ]+(?:scene|part|chunk|segment|seg|shot|clip)[-_ ]*\d+", re.IGNORECASE),
    ),
)
_IS_PUBLISHED = re.compile("|".join(f"(?:{pattern.names.pattern})" for pattern in PUBLISHED)).fullmatch


class Groups(NamedTuple):
    """The groups of clips.

    Args:
        keys: what identifies the group of each clip.
        title: where the groups come from, for messages.
    """

    keys: list[str]
    title: str


def groups_of_names(paths: Sequence[str], labels: np.ndarray | None) -> Groups | None:
    """Return the groups of clips by a published pattern of file names.

    Args:
        paths: paths of the clips.
        labels: number of the class of each clip, int64 (N,); None where a clip may have several classes.

    Returns:
        the groups; None if the names have no pattern, if no two clips have the same group, or if most classes
        have only one group, as where names begin with the class.
    """
    folders, stems = [], []
    for path in paths:
        folder, _, name = path.replace("\\", "/").rstrip("/").rpartition("/")
        folders.append(folder.rpartition("/")[2])
        stems.append(_SUFFIXES.sub("", name[-LONGEST_NAME:]))
    classes = folders if labels is None else labels.tolist()
    probed = stems[:: max(1, len(stems) // 1000)]
    for patterns in (PUBLISHED, *((pattern,) for pattern in GENERAL)):
        if patterns is PUBLISHED:
            candidates = [index for index, stem in enumerate(stems) if _IS_PUBLISHED(stem)]
        elif sum(patterns[0].names.fullmatch(stem) is not None for stem in probed) > len(probed) / 2:
            candidates = range(len(stems))
        else:
            continue
        keys, titles = list(paths), Counter[str]()
        for index in candidates:
            key, title = _recording(stems[index], folders[index], patterns)
            if key is not None:
                keys[index] = key
                titles[title] += 1
        least = 1 if patterns is PUBLISHED else LEAST_MATCH * len(paths)
        if titles.total() < least:
            continue
        if len(set(keys)) < len(keys) and _divides(classes, keys):
            return Groups(keys, " and ".join(title for title, _ in titles.most_common()))
    return None


def _recording(stem: str, folder: str, patterns: Iterable[Pattern]) -> tuple[str | None, str]:
    """Return the recording of a clip by the first pattern that fits, and the title of the pattern."""
    for pattern in patterns:
        if match := pattern.names.fullmatch(stem):
            if match.re.groups == 3 and float(match[2]) >= float(match[3]):
                continue
            return match[1].removesuffix(f"_{folder}") if pattern.has_class else match[1], pattern.title
    return None, ""


def choose_groups(labels: np.ndarray, keys: Sequence[str], interval: int) -> np.ndarray:
    """Choose whole groups to hold out, stratified by class: one of `interval` groups of every class.

    Within a class, groups are ordered by a hash of their keys, and a group of more than half of the clips
    comes last. A class keeps at least one group for the training. The choice is the same on every machine.

    Args:
        labels: class of each clip, int64 (N,).
        keys: group of each clip. A group may have clips of several classes.
        interval: one of so many groups is held out.

    Returns:
        whether a clip is held out, bool (N,).
    """
    clips: defaultdict[int, Counter[str]] = defaultdict(Counter)
    classes: defaultdict[str, set[int]] = defaultdict(set)
    for label, key in zip(labels.tolist(), keys, strict=True):
        clips[label][key] += 1
        classes[key].add(label)
    left = {label: len(groups) for label, groups in clips.items()}  # groups for the training
    held: set[str] = set()
    for label in sorted(clips):
        groups, half = clips[label], sum(clips[label].values()) / 2
        wanted = -(-len(groups) // interval) - sum(key in held for key in groups)
        ordered = sorted(groups, key=lambda key: (groups[key] > half, zlib.crc32(os.fsencode(key)), key))
        for key in ordered:
            if wanted > 0 and key not in held and all(left[own] > 1 for own in classes[key]):
                held.add(key)
                wanted -= 1
                for own in classes[key]:
                    left[own] -= 1
    return np.array([key in held for key in keys], bool)


def shared_groups(train: Samples, other: Samples, split: str, *, with_clips: bool = True) -> list[str]:
    """Return notes on the clips of a split that share their file or their group with training clips.

    Args:
        train: the training split.
        other: another split.
        split: its name, for the notes.
        with_clips: whether to note clips that are in both splits.
    """
    notes = []
    files = [_files(train), _files(other)]
    names = [_names(train, files[0]), _names(other, files[1])]
    known_names, known_files = set(names[0]), set(files[0])
    same = [i for i, name in enumerate(names[1]) if name in known_names]
    if same and with_clips:
        notes.append(
            f"{len(same)} of {len(other)} {split} clips are also in the training split, the first at "
            f"{other.place(same[0])}; the accuracy on them is not that on new clips"
        )
    in_both = [i for i, file in enumerate(files[1]) if file in known_files and names[1][i] not in known_names]
    if in_both:
        notes.append(
            f"{len(in_both)} of {len(other)} {split} clips are parts of videos of the training split, the "
            f"first at {other.place(in_both[0])}; divide whole videos between the splits"
        )
    groups = _common_groups(train, other)
    if groups is not None:
        trained = set(groups.keys[: len(train)]) - {""}
        keys = groups.keys[len(train) :]
        shared = [i for i, key in enumerate(keys) if key in trained and files[1][i] not in known_files]
        if shared:
            notes.append(
                f"{len(shared)} of {len(other)} {split} clips come from the same recordings as training "
                f"clips, by {groups.title}, the first at {other.place(shared[0])}; divide whole recordings "
                "between the splits"
            )
    return notes


def _common_groups(train: Samples, other: Samples) -> Groups | None:
    """Return the groups of the clips of two splits: those of the column `group`, or of the file names."""
    if train.groups is not None and other.groups is not None:
        columns = (train.groups, other.groups)
        return Groups([column[i] for column in columns for i in range(len(column))], "the column group")
    strata = [samples.strata() for samples in (train, other)]
    labels = None if strata[0] is None or strata[1] is None else np.concatenate([strata[0], strata[1]])
    groups = groups_of_names([*_listed(train), *_listed(other)], labels)
    return groups and groups._replace(title=f"their names ({groups.title})")


def _divides(classes: Sequence[object], keys: Sequence[str]) -> bool:
    """Whether most classes with several clips have several groups."""
    counts = Counter(classes)
    groups = Counter(one for one, _ in set(zip(classes, keys, strict=True)))
    several = [groups[one] > 1 for one, count in counts.items() if count > 1]
    return 2 * sum(several) >= max(1, len(several))


def _listed(samples: Samples) -> list[str]:
    return [samples.paths[i] for i in range(len(samples))]


def _files(samples: Samples) -> list[str]:
    """Return the path of the file of each clip, so that equal files have equal paths."""
    root = str(samples.root.absolute())
    return [
        path if "://" in path else os.path.normpath(path if os.path.isabs(path) else f"{root}/{path}")  # noqa: PTH117
        for path in _listed(samples)
    ]


def _names(samples: Samples, files: list[str]) -> list[str]:
    """Return file and part of each clip."""
    if samples.segments is None:
        return files
    return [f"{file}{samples.segment(i)}" for i, file in enumerate(files)]
