"""Class names: which are valid, when two are the same, and the file `classes.txt`."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mmaction_lite.data.annotations.text_files import BYTE_ORDER_MARK, read_text, split_lines
from mmaction_lite.errors import UserError, nearest, printable
from mmaction_lite.files import write_atomically

CLASSES_FILE = "classes.txt"
# Control characters, line and paragraph separators, and lone surrogates.
_INVALID_CATEGORIES = frozenset({"Cc", "Zl", "Zp", "Cs"})


def class_name(text: str) -> str:
    """Return the form of a class name under which names are stored and compared: NFC, without outer spaces.

    Names of folders are in NFD if they were copied through macOS, and text editors write NFC.
    """
    text = text.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def check_class_name(name: str, place: str | Callable[[], str]) -> None:
    """Check that a name can be written to `classes.txt` and to tables, and read back.

    Args:
        name: result of `class_name`.
        place: file and line, or a function that returns them, for the message.

    Raises:
        UserError: the name is empty, or contains control characters or bytes that are not UTF-8.
    """
    if name.isascii() and name.isprintable() and name:
        return
    if name and not any(_is_invalid(character) for character in name):
        return
    place = place if isinstance(place, str) else place()
    if not name:
        raise UserError(f"{place}: the class name is empty; expected a name")
    raise UserError(
        f"{place}: the class name '{printable(name, 100)}' contains a control character or bytes that are "
        "not UTF-8; rename the class"
    )


def _is_invalid(character: str) -> bool:
    return character == BYTE_ORDER_MARK or unicodedata.category(character) in _INVALID_CATEGORIES


def read_classes(file: Path) -> tuple[str, ...]:
    """Read class names in index order, one per line.

    Raises:
        UserError: a line between two names is blank, which makes the indices ambiguous; a name is invalid; or
            two names are the same.
    """
    lines = [class_name(line) for line in split_lines(read_text(file), file)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError(f"{file}: has no class names; expected one name per line")
    first: dict[str, int] = {}
    for number, name in enumerate(lines, 1):
        if not name:
            raise UserError(
                f"{file}:{number}: is blank; the line number determines the index of a class. Delete the line"
            )
        check_class_name(name, f"{file}:{number}")
        if name in first:
            raise UserError(
                f"{file}:{number}: class '{printable(name, 100)}' is also in line {first[name]}; every class "
                "needs a different name"
            )
        first[name] = number
    return tuple(lines)


def class_notes(file: Path, names: Iterable[str]) -> Iterator[str]:
    """Yield notes on class names that may be a mistake in `classes.txt`."""
    marked = [name for name in names if name.startswith("#")]
    if marked:
        yield (
            f"{file}: {len(marked)} class names begin with #, such as '{printable(marked[0], 60)}'; the file "
            "has no comments"
        )


def write_classes(file: Path, names: Sequence[str]) -> None:
    """Write class names in index order, one per line.

    Raises:
        UserError: the file cannot be written, or `read_classes` would not return the same names.
    """
    for name in names:
        check_class_name(class_name(name), str(file))
    twice = [name for name in ClassIndex(names).ambiguous if name]
    if twice:
        raise UserError(f"{file}: two classes have the name '{printable(twice[0], 100)}'; rename one of them")
    content = "".join(f"{class_name(name)}\n" for name in names).encode()
    write_atomically(file, lambda out: out.write(content))


def class_prefix(column: str, columns: Sequence[str]) -> str:
    """Return the prefix of the class names of a label column: `verb: ` if a table has several, else empty."""
    return f"{column}: " if len(columns) > 1 else ""


class ClassIndex:
    """The index of each class name.

    Args:
        names: class names, in index order.

    Attributes:
        names: the argument, as a tuple.
        ambiguous: names of more than one class, in the form of `class_name`.
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self.ambiguous: set[str] = set()
        self._index: dict[str, int] = {}
        for number, name in enumerate(map(class_name, self.names)):
            if self._index.setdefault(name, number) != number:
                self.ambiguous.add(name)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def find(self, name: str, place: Callable[[], str]) -> int:
        """Return the index of a name in the form of `class_name`.

        Args:
            name: the name.
            place: returns file and line, for the message.

        Raises:
            UserError: no class or more than one class has this name.
        """
        index = self._index.get(name)
        if index is None:
            known = [printable(other, 60) for other in self._index]
            raise UserError(
                f"{place()}: class '{printable(name, 100)}' is not among the {len(self)} known classes; "
                + nearest(printable(name, 60), known)
            )
        if name in self.ambiguous:
            raise UserError(
                f"{place()}: several of the {len(self)} known classes have the name "
                f"'{printable(name, 100)}'; use numbers as labels"
            )
        return index
