"""The class of a clip after it is mirrored or played backwards, inferred from the class names."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from mmaction_lite.errors import UserError

_SIDES = {"left": "right", "clockwise": "counterclockwise"}
_SIDES |= {other: side for side, other in _SIDES.items()}
_SIDE = re.compile(r"(?<![a-z])(left|right|clockwise|counterclockwise)(?![a-z])")
# Words that are exchanged when a video is played backwards; the longest match counts.
_OPPOSITES = {
    "left": "right",
    "up": "down",
    "upwards": "downwards",
    "upward": "downward",
    "clockwise": "counterclockwise",
    "forward": "backward",
    "forwards": "backwards",
    "in": "out",
    "into": "out of",
    "inwards": "outwards",
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
_DIRECTION = re.compile(
    r"(?<![a-z])(?<!thumb[ _])(?<!thumbs[ _])("
    + "|".join(sorted(_OPPOSITES, key=len, reverse=True)).replace(" ", "[ _]")
    + r")(?![a-z]|[ _](hand|arm|leg|foot|eye|ear)s?(?![a-z]))",
    re.IGNORECASE,
)


def mirrored_classes(classes: Sequence[str]) -> np.ndarray:
    """Return the class of a mirrored clip of each class, int64 (len(classes),).

    In the class names, left is replaced by right and clockwise by counterclockwise, and vice versa. A class
    whose name contains none of these words keeps its index.

    Raises:
        UserError: there is no class of the new name.
    """
    return _renamed(classes, _mirrored_name, "mirrored", "train without mirroring: --set train.flip=0")


def reversed_classes(classes: Sequence[str]) -> np.ndarray:
    """Return the class of a reversed clip of each class, int64 (len(classes),).

    In the class names, words such as left and right, up and down, in and out, opening and closing are
    exchanged. A class whose name contains none of these words ("clapping", "thumb up") keeps its index: check
    that its clips look the same when played backwards.

    Raises:
        UserError: there is no class of the new name.
    """
    remedy = "train without reversal: --set train.reverse=0"
    return _renamed(classes, _reversed_name, "played backwards", remedy)


def _renamed(classes: Sequence[str], rename: Callable[[str], str], done: str, remedy: str) -> np.ndarray:
    index = {name: i for i, name in enumerate(classes)}
    for name in classes:
        if rename(name) not in index:
            raise UserError(
                f"class {name!r} {done} would be {rename(name)!r}, which is not a class; {remedy}"
            )
    return np.array([index[rename(name)] for name in classes], np.int64)


def _mirrored_name(name: str) -> str:
    return _SIDE.sub(lambda match: _SIDES[match[0]], name)


def _reversed_name(name: str) -> str:
    def opposite(match: re.Match[str]) -> str:
        word = match[0].lower()
        gap = "_" if "_" in name else " "
        other = _OPPOSITES[word.replace("_", " ")].replace(" ", gap)
        return other.capitalize() if match[0][0].isupper() else other

    return _DIRECTION.sub(opposite, name)
