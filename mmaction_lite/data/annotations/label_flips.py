"""The class of a clip after it is mirrored or played backwards, inferred from the class names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mmaction_lite.data.annotations.directions import (
    Certainty,
    Parts,
    Term,
    key,
    rename,
    split_opposites,
    split_sides,
)
from mmaction_lite.errors import UserError, printable

# Words that are exchanged when a video is played backwards, besides the sides; the longest match counts.
_OPPOSITES = {
    "up": "down",
    "upwards": "downwards",
    "upward": "downward",
    "forward": "backward",
    "forwards": "backwards",
    "in": "out",
    "into": "out of",
    "inwards": "outwards",
    "inward": "outward",
    "towards": "away from",
    "approaching": "moving away from",
    "opening": "closing",
    "open": "close",
    "pushing": "pulling",
    "push": "pull",
    "putting": "taking",
    "folding": "unfolding",
    "fold": "unfold",
    "covering": "uncovering",
    "rising": "falling",
    "lifting": "lowering",
    "entering": "leaving",
    "growing": "shrinking",
    "grow": "shrink",
    "appearing": "vanishing",
    "appear": "vanish",
}
_OPPOSITES |= {other: word for word, other in _OPPOSITES.items()}
_OPPOSITES |= {"toward": "away from", "away": "in"}
# "thumb up" and "left hand" are no movements, and a reversed push-up is a push-up.
_NO_MOVEMENT = re.compile(
    r"^thumbs? |^\S* ?(left|right) (hand|arm|leg|foot|eye|ear)s?\b|^(\S* )?(push|pull|sit) ups?\b"
)
_ALL: frozenset[Certainty] = frozenset({"certain", "possible", "unlikely"})
# In this order, the terms that mean a direction: the first choice with which the opposite class exists.
_CHOICES: tuple[frozenset[Certainty], ...] = (
    _ALL,
    frozenset({"certain", "possible"}),
    frozenset({"certain"}),
)
# Letters that are directions, as in "turn_L" beside "turn_U". Others beside L and R make them an alphabet.
_DIRECTION_LETTERS = frozenset("lrudfbcmnsew")
MOST_LETTERS = 20


class LabelFlips(NamedTuple):
    """The classes of altered clips.

    Args:
        classes: class of an altered clip of each class, int64 (K,).
        unpaired: names of classes that may contain a direction, such as "turn L", and keep their label
            because there is no class of the opposite direction.
    """

    classes: np.ndarray
    unpaired: list[str]


def mirrored_classes(classes: Sequence[str]) -> np.ndarray:
    """Return the class of a mirrored clip of each class, int64 (len(classes),).

    In the class names, left is replaced by right and clockwise by counterclockwise, and vice versa, in any
    spelling: `Swipe left`, `swipeLeft`, `LEFT`, `lefthand`, `anti-clockwise`. A class whose name contains
    none of these words keeps its index. Abbreviations (`L`, `R`, `CW`, `CCW`), words of some other languages,
    and words that may mean something else ("right away") are replaced only if there is a class of the new
    name.

    Raises:
        UserError: there is no class of the new name.
    """
    return mirror_labels(classes).classes


def reversed_classes(classes: Sequence[str]) -> np.ndarray:
    """Return the class of a reversed clip of each class, int64 (len(classes),).

    In the class names, words such as left and right, up and down, in and out, opening and closing are
    exchanged, in any spelling. A class whose name contains none of these words ("clapping", "thumb up") keeps
    its index: check that its clips look the same when played backwards.

    Raises:
        UserError: there is no class of the new name.
    """
    return reverse_labels(classes).classes


def mirror_labels(classes: Sequence[str]) -> LabelFlips:
    """Return the classes of mirrored clips; see `mirrored_classes`."""
    parts = _without_alphabets([split_sides(name) for name in classes])
    return _flips(classes, parts, "mirrored", "train without mirroring: --set train.flip=0")


def reverse_labels(classes: Sequence[str]) -> LabelFlips:
    """Return the classes of reversed clips; see `reversed_classes`."""
    parts = [split_opposites(name, _OPPOSITES, _NO_MOVEMENT) for name in classes]
    return _flips(classes, parts, "played backwards", "train without reversal: --set train.reverse=0")


def describe_flips(classes: Sequence[str], flips: LabelFlips, done: str) -> list[str]:
    """Return notes on the classes that exchange their labels, and on those that may have to.

    Args:
        classes: class names.
        flips: the classes of altered clips.
        done: how clips are altered: "mirrored" or "reversed".
    """
    pairs = [(i, int(j)) for i, j in enumerate(flips.classes) if i < j]
    notes = []
    if pairs:
        shown = ", ".join(f"{printable(classes[i])} ↔ {printable(classes[j])}" for i, j in pairs[:3])
        more = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
        notes.append(
            f"{done} clips of {2 * len(pairs)} classes get the label of another class: {shown}{more}"
        )
    if flips.unpaired:
        notes.append(
            f"{done} clips of {len(flips.unpaired)} classes keep their label, although the names may contain "
            f"a direction: {', '.join(map(printable, flips.unpaired[:5]))}"
        )
    return notes


def _flips(classes: Sequence[str], parts: Sequence[Parts], done: str, remedy: str) -> LabelFlips:
    """Find the class of the opposite direction of each class.

    Raises:
        UserError: there is none, or classes with equal words make the choice ambiguous.
    """
    exact = {name: number for number, name in enumerate(classes)}
    alike: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, own in enumerate(parts):
        alike[key(own)].append(number)
        if len(text := _without_number(key(own))) < len(key(own)):
            alike["unnumbered", *text].append(number)
    found = np.arange(len(classes))
    unpaired = []
    for number, own in enumerate(parts):
        certainties = {part.certainty for part in own if isinstance(part, Term)}
        if not certainties:
            continue
        for chosen in _CHOICES:
            if not certainties & chosen:
                continue
            name = rename(own, chosen)
            other = key(own, chosen)
            candidates = [exact[name]] if name in exact else alike.get(other, [])
            if not candidates and len(text := _without_number(other)) < len(other):
                candidates = alike.get(("unnumbered", *text), [])
            if len(candidates) == 1:
                found[number] = candidates[0]
                break
        else:
            if "certain" in certainties:
                other = rename(own, frozenset({"certain"}))
                raise UserError(
                    f"class {classes[number]!r} {done} would be {other!r}, which is not a class; {remedy}"
                )
            unpaired += [classes[number]] if "possible" in certainties else []
    for number in np.flatnonzero(found[found] != np.arange(len(classes))).tolist():
        there = int(found[number])
        one, other, back = classes[number], classes[there], classes[int(found[there])]
        raise UserError(
            f"class {one!r} {done} would be {other!r}, but {other!r} {done} would be {back!r}; rename "
            f"classes that differ only in spelling, or {remedy}"
        )
    return LabelFlips(found.astype(np.int64), unpaired)


def _without_number(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return a key without a number in front, as in `01_left_hook` and `02_right_hook`."""
    start = next((at for at, word in enumerate(words) if any(map(str.isalpha, word))), len(words))
    return words[start:]


def _without_alphabets(parts: Sequence[Parts]) -> list[Parts]:
    """Return the parts of all names without the terms L and R that are letters of an alphabet."""
    letters: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for own in parts:
        for place, letter in _single_letters(own):
            letters[place].add(letter)
    result = []
    for own in parts:
        if any(letters[place] - _DIRECTION_LETTERS for place, _ in _single_letters(own)):
            own = [part.text if isinstance(part, Term) and len(part.text) == 1 else part for part in own]
        result.append(own)
    return result


def _single_letters(parts: Parts) -> Iterable[tuple[tuple[str, ...], str]]:
    """Yield each word of one letter of a name, and the name with a placeholder in its place.

    A name with more than `MOST_LETTERS` such words is no letter of an alphabet, and yields nothing.
    """
    texts = [part.text if isinstance(part, Term) else part for part in parts]
    places = [at for at, text in enumerate(texts) if len(text) == 1 and text.isascii() and text.isalpha()]
    for at in places if len(places) <= MOST_LETTERS else ():
        yield key([*parts[:at], "*", *parts[at + 1 :]]), texts[at].lower()
