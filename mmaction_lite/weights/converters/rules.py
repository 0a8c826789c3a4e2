"""Rules that change names: each is a pattern and its replacement, and all are applied in their order."""

import re
from collections.abc import Callable, Sequence

Replacement = str | Callable[[re.Match[str]], str]
Rule = tuple[re.Pattern[str], Replacement]


def compile_rules(*rules: tuple[str, Replacement]) -> list[Rule]:
    """Return rules with compiled patterns."""
    return [(re.compile(pattern), replacement) for pattern, replacement in rules]


def apply_rules(rules: Sequence[Rule], name: str) -> str:
    """Return `name` after all rules; a rule whose pattern is not found changes nothing."""
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name
