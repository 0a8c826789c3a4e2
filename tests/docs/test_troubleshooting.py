"""Every message on the page about troubleshooting is one of the program's."""

import ast
import re
from functools import cache

import pytest

from tests.docs.pages import ROOT, page_text

GAP = "…"
PAGE = page_text("docs/troubleshooting.md")
QUOTES = [" ".join(text.split()) for text in re.findall(r"^\* `([^`]+)`$", PAGE, re.MULTILINE)]
QUOTES += re.findall(r"`([^`]*pip install 'mmaction-lite[^`]*)`", PAGE)


def template(node: ast.AST) -> str | None:
    """The text of a string, with gaps for what is filled in; None for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) or GAP for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (template(node.left) or GAP) + (template(node.right) or GAP)
    return None


@cache
def templates() -> list[str]:
    found = []
    for path in (ROOT / "mmaction_lite").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if text := template(node):
                found.append(" ".join(text.split()))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return [*found, makefile]


def is_a_message(quote: str) -> bool:
    """Whether a template has the quote's fixed parts, in their order."""
    parts = quote.split(GAP)
    return any(has_parts(text, parts) for text in templates())


def has_parts(text: str, parts: list[str]) -> bool:
    """Whether `text` contains the parts in this order, without overlap; takes time linear in the text."""
    end = 0
    for part in parts:
        start = text.find(part, end)
        if start < 0:
            return False
        end = start + len(part)
    return True


def test_the_page_quotes_many_messages():
    assert len(QUOTES) >= 40


@pytest.mark.parametrize("quote", QUOTES)
def test_every_quoted_message_is_in_the_source(quote):
    assert len(quote.replace(GAP, "").strip()) > 12
    assert is_a_message(quote), "the message was changed: write the new one into docs/troubleshooting.md"


def test_a_message_that_is_not_in_the_source_is_found():
    assert is_a_message("…: the file is empty (0 bytes)")
    assert not is_a_message("…: the file is vacant (0 bytes)")
