"""Choose and sort the frames of a video by the names of image files."""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import NamedTuple

from mmaction_lite.errors import VideoError, printable

DIGITS = str.maketrans("123456789", "0" * 9)
RGB_WORDS = frozenset("color colour frame frames im image images img pic picture rgb".split())  # noqa: SIM905
OTHER_WORDS = frozenset(
    "annotation annotations cover depth disp disparity flow flowx flowy gt heatmap infrared ir label labels "  # noqa: SIM905
    "mask masks mv normal normals optical pose poster preview residual seg segmentation skeleton thermal "
    "thumb thumbnail warp warped".split()
)
MAX_KINDS = 8  # more kinds of names, most of them of one file, are names without a structure
MAX_CAMERAS = 16
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_CAMERA = re.compile(r"(.*[^\W\d_]\d+[\W_].*?)(\d+)\D*", re.DOTALL)


class Selection(NamedTuple):
    """Frames of a video among image files.

    Args:
        names: the frames in natural order.
        others: number of the images of each other kind, by a pattern of their names.
    """

    names: list[str]
    others: dict[str, int]

    @property
    def note(self) -> str:
        """A warning about images that are not frames and about missing numbers; empty if there are none."""
        notes = []
        if self.others:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.others.items())
            notes.append(f"contains other images, which are not read: {kinds}")
        if gap := _gap(self.names):
            notes.append(gap)
        return "; ".join(notes)


def select_frames(names: Iterable[str], path: str, pattern: str | None = None) -> Selection:
    """Choose the images that are the frames of one video.

    Images belong to one kind if their names differ in numbers only. If there are several kinds, the frames
    are the kind whose name is a number, or consists of words such as `img`, `frame` and `rgb`; or else the
    only kind that has none of the words `flow`, `depth`, `mask` and the like. Names without a number, such as
    `cover.jpg`, are frames only if no name has one.

    Args:
        names: names of the images, which may begin with folders.
        path: folder or archive, for messages.
        pattern: name of the frames, in which `*` stands for the frame number. If no kind has this form, all
            images that match it are frames. None chooses the kind.

    Raises:
        VideoError: several kinds may be the frames, no name matches the pattern, or two images have the same
            frame number.
    """
    names = list(names)
    if pattern is None and _is_plain(names):
        return Selection(sorted(names), {})
    short = _without_folders(names)
    if pattern is not None:
        return _matching(names, short, path, pattern)
    kinds = _kinds(names, short)
    if _is_unstructured(kinds):
        return Selection(in_natural_order(names), {})
    key = _choose(kinds)
    if key is None:
        counts = Counter({_label(k, kinds[k], short): len(kinds[k]) for k in sorted(kinds)}).most_common(6)
        found = ", ".join(f"{count} {kind}" for kind, count in counts)
        raise VideoError(
            f"{path}: contains several kinds of images: {found}; expected the frames of one video. "
            f"Append the pattern of the frames to the path: {path}/{counts[0][0]}"
        )
    chosen = _in_order(kinds.pop(key), short, path)
    return Selection(chosen, {_label(key, kinds[key], short): len(kinds[key]) for key in sorted(kinds)})


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sort names, with the numbers in them compared by value, and capital letters like small ones.

    If names differ in digits only and have the same length, as those of most videos, plain sorting gives the
    same order. Splitting every name takes longer than decoding two frames.
    """
    names = list(names)
    alike = len({name.translate(DIGITS) for name in names}) <= 1
    return sorted(names) if alike else sorted(sorted(names), key=natural_key)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key of a name in which numbers compare by value.

    The number of digits and the digits are compared, because Python converts at most 4,300 digits.
    """
    return [
        (len(digits), digits) if (digits := _digits(part)) is not None else (-1, part.casefold())
        for part in re.split(r"(\d+)", name)
    ]


def _digits(text: str) -> str | None:
    """Return the digits of a number in any script as ASCII, without leading zeros; None for other text."""
    if not text.isdecimal():
        return None
    return (text if text.isascii() else "".join(str(int(digit)) for digit in text)).lstrip("0")


def _is_plain(names: list[str]) -> bool:
    """Whether all names have the same length and are equal except for one number, so that sorting is simple.

    Other numbers may differ, too, if none of them may be that of a camera.
    """
    templates = {name.translate(DIGITS) for name in names}
    if len(templates) > 1:
        return False
    camera = _CAMERA.fullmatch(_stem(templates.pop())) if names else None
    return camera is None or len({name[: camera.end(1)] for name in names}) == 1


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _key(name: str) -> str:
    """Return the kind of an image: its name without suffix, with # for every number."""
    return _NUMBER.sub("#", _stem(name)).casefold()


def _without_folders(names: Sequence[str]) -> dict[str, str]:
    """Return for every name the part after the folder that is common to all of them."""
    folders = {name.rpartition("/")[0] for name in names}
    if folders <= {""}:
        return {name: name for name in names}
    common = "" if "" in folders else posixpath.commonprefix([f"{folder}/" for folder in folders])
    length = common.rfind("/") + 1
    return {name: name[length:] for name in names}


def _kinds(names: Sequence[str], short: dict[str, str]) -> dict[str, list[str]]:
    """Return the images of each kind; the key of images without a number is empty."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        key = _key(short[name])
        found[key if "#" in key else ""].append(name)
    kinds = {}
    for key, members in found.items():
        kinds |= _cameras(key, members, short) or {key: members}
    return kinds


def _cameras(key: str, members: list[str], short: dict[str, str]) -> dict[str, list[str]]:
    """Return the images of each camera if names such as cam0_00001 and cam1_00001 number several cameras."""
    cameras: dict[str, list[str]] = defaultdict(list)
    numbers = []
    for name in members:
        match = _CAMERA.fullmatch(_stem(short[name]))
        if match is None:
            return {}
        cameras[f"{match[1].casefold()}#{key.rpartition('#')[2]}"].append(name)
        numbers.append(_digits(match[2]))
    shared = len(numbers) - len(set(numbers))
    return cameras if 1 < len(cameras) <= MAX_CAMERAS and shared >= 2 else {}


def _is_unstructured(kinds: dict[str, list[str]]) -> bool:
    """Whether names such as checksums have numbers that do not count frames."""
    single = sum(len(members) == 1 for members in kinds.values())
    return len(kinds) > MAX_KINDS and 2 * single > sum(map(len, kinds.values()))


def _choose(kinds: dict[str, list[str]]) -> str | None:
    """Return the kind of the frames; None if it is ambiguous."""
    numbered = [key for key in kinds if key]
    if len(numbered) <= 1:
        return numbered[0] if numbered else ""
    words = {key: set(re.findall(r"[^\W\d_]+", key)) for key in numbered}
    for candidates in (
        [key for key in numbered if words[key] <= RGB_WORDS],
        [key for key in numbered if not words[key] & OTHER_WORDS],
    ):
        if candidates:
            return candidates[0] if len(candidates) == 1 else None
    return None


def _matching(names: list[str], short: dict[str, str], path: str, pattern: str) -> Selection:
    folded = pattern.casefold()
    stem, _, suffix = folded.rpartition(".")
    fitting = [name for name in names if fnmatchcase(_suffix(short[name]), suffix)] if stem else []
    kinds = _kinds(fitting, short)
    key = stem.replace("*", "#")
    if key in kinds:
        return Selection(_in_order(kinds[key], short, path), {})
    chosen = [name for name in names if fnmatchcase(short[name].casefold(), folded)]
    if not chosen:
        raise VideoError(f"{path}: contains no image that matches {pattern!r}")
    return Selection(in_natural_order(chosen), {})


def _in_order(names: list[str], short: dict[str, str], path: str) -> list[str]:
    """Sort the frames of a video.

    Raises:
        VideoError: two images have the same frame number.
    """
    ordered = in_natural_order(names)
    numbers: dict[tuple[tuple[int, str], ...], str] = {}
    for name in ordered:
        other = numbers.setdefault(tuple(natural_key(_stem(short[name]))), name)
        if other != name:
            raise VideoError(
                f"{path}: {printable(other)} and {printable(name)} have the same frame number; expected one "
                f"image per frame. Delete one of them, or append a pattern to the path, such as "
                f"{path}/*.{_suffix(name)}"
            )
    return ordered


def _label(key: str, names: list[str], short: dict[str, str]) -> str:
    """Return the names of one kind as a pattern."""
    if not key:
        shown = ", ".join(printable(short[name], 60) for name in names[:3])
        return f"without a number ({shown}{', …' if len(names) > 3 else ''})"
    suffixes = {_suffix(name) for name in names}
    return printable(key.replace("#", "*"), 60) + "." + (suffixes.pop() if len(suffixes) == 1 else "*")


def _gap(names: list[str]) -> str:
    """Return a note if some numbers are missing in names that count frames one by one."""
    found = [re.findall(r"\d+", _stem(name))[-1:] for name in names]
    numbers = sorted({int(number) for match in found for number in match if len(number) <= 18})
    if len(numbers) < len(names) or not numbers:
        return ""
    first, last = numbers[0], numbers[-1]
    missing = last - first + 1 - len(numbers)
    if not 0 < missing < len(numbers):
        return ""
    absent = next(number + 1 for number, after in pairwise(numbers) if after > number + 1)
    return f"{missing} of the frame numbers {first} to {last} are missing, the first is {absent}"
