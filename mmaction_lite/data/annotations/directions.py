"""Find the words for sides and directions in class names: left, `swipeRight`, `turn_L`, CCW, in, out.

A class name is split into words at spaces, underscores, punctuation, digits and changes of case, so that
`Swipe left`, `swipe_left`, `SwipeLeft` and `SWIPE-LEFT` consist of the same words. A word for a direction
becomes a `Term`. The parts of a name, with a symbol for every term, identify a class regardless of its
spelling.
"""

import re
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple
from unicodedata import normalize

Certainty = Literal["certain", "possible", "unlikely"]


class Term(NamedTuple):
    """A word for a direction in a class name.

    Args:
        text: the word, as written; it may contain separators, as in `counter-clockwise`.
        symbol: the direction, equal for all spellings, such as `<left>`.
        opposite: symbol of the opposite direction, such as `<right>`.
        opposite_text: word for the opposite direction, in the case of `text`.
        certainty: whether the word means a direction: "certain" (`left`), "possible" (`L`), or "unlikely"
            (`right` in "right away", `upright`). If it is not certain, the class names decide: it is a
            direction if there is a class with the opposite word.
    """

    text: str
    symbol: str
    opposite: str
    opposite_text: str
    certainty: Certainty = "certain"


Parts = list[str | Term]

# Runs of letters, split at changes of case; every other character is a separate part. LEFT, RIGHT and
# CLOCKWISE may be followed by a word in lower case.
_PARTS = re.compile(
    r"(?:LEFT|RIGHT|CLOCKWISE)(?=[a-z]{3})|[LR](?=to[LR](?![a-z]))|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+"
    r"|[^\W\d_A-Za-z]+|[^A-Za-z]"
)
_GAP = re.compile(r"[\s_\-]*")
_SIDE = re.compile(r"left|right|(?:counter|anti|contra)?clockwise|왼|오른|[左右]")
_OTHER_SIDE = {"left": "right", "clockwise": "counterclockwise", "왼": "오른", "左": "右"}
_OTHER_SIDE |= {other: side for side, other in _OTHER_SIDE.items()}
# Abbreviations, and words of other languages: word, opposite word.
_POSSIBLE_SIDES = [
    *(("l", "r"), ("lh", "rh"), ("lhs", "rhs"), ("lr", "rl"), ("ltr", "rtl"), ("lft", "rgt"), ("cw", "ccw")),
    *(("links", "rechts"), ("linke", "rechte"), ("linken", "rechten"), ("linker", "rechter")),
    *(("gauche", "droite"), ("izquierda", "derecha"), ("izquierdo", "derecho"), ("sinistra", "destra")),
    *(("sinistro", "destro"), ("esquerda", "direita"), ("esquerdo", "direito"), ("lewo", "prawo")),
    *(("lewa", "prawa"), ("налево", "направо"), ("влево", "вправо"), ("gauche", "droit"), ("acw", "cw")),
]
# Words with the same meaning, and the one that stands for all.
_SYMBOLS = {"cw": "clockwise", "ccw": "counterclockwise", "acw": "counterclockwise", "droit": "droite"}
_SYMBOLS |= {"away": "out", "toward": "towards"}
_POSSIBLE: dict[str, str] = {}
for _one, _other in _POSSIBLE_SIDES:
    _POSSIBLE.setdefault(_one, _other)
    _POSSIBLE.setdefault(_other, _one)
# Words that contain "left" or "right" and usually mean no side.
_WORDS_WITHOUT_SIDE = re.compile(
    r"\w*[bfw]right\w*|(al|all|a|up|out|down|forth|copy|birth)right(s|ly|ness|ed)?|righty?o"
    r"|right(s|ed|ing|eous|ful|ist)\w*|cleft\w*|leftovers?|leftist\w*"
)
# Phrases, in lower case, in which the words between ( and ) usually mean no side.
_PHRASES_WITHOUT_SIDE = re.compile(
    r"\b(?:"
    r"(right)(?= (?:out|away|now|after|before|next|beside|behind|beneath|underneath|through|way|place|time"
    r"|moment|size|amount|answer|order|angles?|angled|in front|on top|of way|side (?:up|down|out))\b)"
    r"|(?:all|human|wrong (?:and|or)) (right)|(right)(?= (?:and|or|from) wrong\b)"
    r"|(left)(?= (?:the|an?|his|her|their|its|my|your|something|someone|somebody|everything|home|work|school"
    r"|behind|alone|over|open|empty|unattended|untouched|without)\b)"
    r"|(?:has|have|had|been|gets|nothing|anything) (left)"
    # The mirror image of "left and right" is the same action.
    r"|(left (?:and|or|&|/) right)|(right (?:and|or|&|/) left)"
    r")\b"
)


def split_sides(name: str) -> Parts:
    """Split a class name into words, separators and the terms for sides: left, right, clockwise, …

    The texts of all parts, concatenated, are the name in Unicode normal form C.
    """
    texts = _split(name)
    starts, sentence = [], ""
    for text in texts:  # the name in lower case, with one space between words, and where each word begins
        starts.append(len(sentence))
        sentence += "" if _GAP.fullmatch(text) else f"{text.lower()} "
    unlikely = [
        span
        for match in _PHRASES_WITHOUT_SIDE.finditer(sentence)
        for span in map(match.span, range(1, 1 + len(match.groups())))
    ]
    parts: Parts = []
    for text, start in zip(texts, starts, strict=True):
        term = _side(text)
        if term is not None and any(first <= start < end for first, end in unlikely):
            term = term._replace(certainty="unlikely")
        parts.append(term or text)
    return parts


def split_opposites(name: str, opposites: Mapping[str, str], ignored: re.Pattern[str]) -> Parts:
    """Split a class name into words, separators and the terms that have an opposite, sides included.

    Args:
        name: the class name.
        opposites: words of up to three words, separated by a space, and their opposites.
        ignored: matches the words `before term after` around a term that is no direction there, such as
            "left" in "wave left hand".
    """
    source = split_sides(name)
    texts = [part if isinstance(part, str) else part.text for part in source]
    gap = "_" if "_" in name else " "
    parts: Parts = []
    at = 0
    while at < len(source):
        # Three words have two separators between them, or none in camel case.
        lengths = (n for n in range(5, 0, -1) if _begins_and_ends_with_words(texts[at : at + n]))
        length = next((n for n in lengths if _words(texts[at : at + n]) in opposites), 1)
        own, words, text = source[at], _words(texts[at : at + length]), "".join(texts[at : at + length])
        if words in opposites:
            other = opposites[words]
            symbol, opposite = (f"<{_SYMBOLS.get(one, one)}>" for one in (words, other))
            around = (
                "".join(texts[max(0, at - 1) : at])[-1:],
                "".join(texts[at + length : at + length + 1])[:1],
            )
            # In camel case, as in `CuttingInKitchen`, the word may belong to a name.
            certainty = "possible" if any(map(str.isalpha, around)) else "certain"
            own = Term(text, symbol, opposite, _in_case_of(text, other.replace(" ", gap)), certainty)
        before, after = texts[max(0, at - 2) : at], texts[at + length : at + length + 4]
        around = (_words(before).rpartition(" ")[2], words, _words(after))
        parts.append(text if ignored.search(" ".join(around)) else own)
        at += length
    return parts


def key(parts: Parts, swapped: Collection[Certainty] = ()) -> tuple[str, ...]:
    """Return what identifies a class name regardless of its spelling.

    Args:
        parts: the parts of the name.
        swapped: the terms to replace by their opposites.
    """
    return tuple(
        part.casefold()
        if isinstance(part, str)
        else part.opposite
        if part.certainty in swapped
        else part.symbol
        for part in parts
        if isinstance(part, Term) or not _GAP.fullmatch(part)
    )


def rename(parts: Parts, swapped: Collection[Certainty]) -> str:
    """Return the class name in which terms are replaced by their opposites, in the same case.

    Args:
        parts: the parts of the name.
        swapped: the terms to replace.
    """
    return "".join(
        part if isinstance(part, str) else part.opposite_text if part.certainty in swapped else part.text
        for part in parts
    )


def _split(name: str) -> list[str]:
    """Split a name into words and other characters; `counter`, a separator and `clockwise` are one word."""
    texts: list[str] = []
    for text in _PARTS.findall(normalize("NFC", name)):
        for last, first in (("wise", ("clock",)), ("clockwise", ("counter", "anti", "contra"))):
            if _words([text]) == last and texts:
                gap = 1 if _GAP.fullmatch(texts[-1]) and len(texts) > 1 else 0
                if texts[-1 - gap].lower() in first:
                    text = "".join([*texts[-1 - gap :], text])
                    del texts[-1 - gap :]
        texts.append(text)
    return texts


def _words(texts: list[str]) -> str:
    """Return the words in lower case, separated by a space; `counter-clockwise` is one word."""
    return " ".join(re.sub(r"[\s_\-]", "", text.lower()) for text in texts if not _GAP.fullmatch(text))


def _begins_and_ends_with_words(texts: list[str]) -> bool:
    return not _GAP.fullmatch(texts[0]) and not _GAP.fullmatch(texts[-1])


def _side(text: str) -> Term | None:
    """Return the term for a side that a word is or contains; None if it has no side."""
    word = _words([text])
    if word in _POSSIBLE:
        other = _POSSIBLE[word]
        symbols = (_SYMBOLS.get(symbol, symbol) for symbol in (word, other))
        symbol, opposite = (f"<{symbol}>" for symbol in symbols)
        return Term(text, symbol, opposite, _in_case_of(text, other), "possible")
    if not _SIDE.search(word):
        return None
    # All spellings of counterclockwise have one symbol.
    word = re.sub(r"(anti|contra)clockwise", "counterclockwise", word)
    other = _SIDE.sub(lambda match: _OTHER_SIDE[match[0]], word)
    certainty = "unlikely" if _WORDS_WITHOUT_SIDE.fullmatch(word) else "certain"
    if not word.isascii():
        certainty = "possible"
    symbol, opposite = (f"<{side.replace('wards', 'ward')}>" for side in (word, other))
    return Term(text, symbol, opposite, _in_case_of(text, other), certainty)


def _in_case_of(text: str, other: str) -> str:
    """Return `other` in lower, upper or title case, as `text` is."""
    if text.isupper() and (len(text) > 1 or len(other) == 1):
        return other.upper()
    return other[0].upper() + other[1:] if text[0].isupper() else other
