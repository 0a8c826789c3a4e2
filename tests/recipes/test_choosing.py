"""The table of rules that chooses the kind of training."""

from pathlib import Path

import pytest

from mmaction_lite.recipes.choosing import (
    FEW_CLIPS,
    LARGE,
    LONGEST_HOURS,
    MANY_CLIPS,
    RULES,
    Facts,
    choose_method,
)

PLAIN = Facts(
    has_weights=True,
    is_transformer=False,
    parameters=24_000_000,
    clips=2000,
    clips_per_class=100,
    hours=1,
    training_gib=4,
    memory_gib=16,
)


@pytest.mark.parametrize(
    ("changes", "method", "reason"),
    [
        ({}, "fine-tune", r"fits time (about 1.0 h) and memory"),
        ({"has_weights": False, "is_transformer": True, "hours": 99}, "from nothing", "no trained weights"),
        ({"hours": LONGEST_HOURS}, "fine-tune", ""),
        ({"hours": LONGEST_HOURS + 1}, "probe", "would take about 7 hours"),
        ({"is_transformer": True, "hours": LONGEST_HOURS + 1}, "probe", "reads every clip once"),
        ({"training_gib": 17}, "probe", "needs about 17.0 GiB of memory, and 16.0 GiB are free"),
        ({"training_gib": 17, "is_transformer": True}, "lora", "needs about 17.0 GiB"),
        ({"is_transformer": True}, "fine-tune", ""),
        ({"is_transformer": True, "clips_per_class": FEW_CLIPS - 1}, "lora", "49 clips per class are few"),
        ({"clips_per_class": 5}, "fine-tune", ""),
        ({"clips": 3, "is_transformer": True}, "probe", "3 clips are fewer than the 4 of the smallest batch"),
        ({"clips": 4}, "fine-tune", ""),
        ({"parameters": int(LARGE) + 1}, "probe", "2000 clips are few for all weights"),
        ({"parameters": int(LARGE) + 1, "clips": MANY_CLIPS}, "fine-tune", ""),
    ],
)
def test_the_first_rule_that_applies_counts(changes, method, reason):
    found = choose_method(PLAIN._replace(**changes))
    assert found[0] == method
    assert reason in found[1]


def test_the_documented_table_is_that_of_the_rules():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    rows = "\n".join(f"| {rule.method} | {rule.condition} |" for rule in RULES)
    assert f"\n| training | if |\n|---|---|\n{rows}\n" in page


def test_every_rule_can_apply():
    """No rule is hidden by those before it, and the last one always applies."""
    facts = [
        Facts(*values)
        for has_weights in (True, False)
        for is_transformer in (True, False)
        for parameters in (1e6, 1e9)
        for clips in (3, 100, 100_000)
        for per_class in (5, 500)
        for hours in (1, 100)
        for gib in (1, 100)
        for values in [(has_weights, is_transformer, int(parameters), clips, per_class, hours, gib, 10)]
    ]
    first = [next(rule for rule in RULES if rule.applies(each)) for each in facts]
    assert set(map(id, first)) == set(map(id, RULES))
