"""Rules that change names of weights."""

from mmaction_lite.weights.converters.rules import apply_rules, compile_rules


def test_rules_are_applied_one_after_the_other():
    rules = compile_rules(
        (r"^head\.", "fc."),
        (r"^s(\d)\.", lambda match: f"layer{int(match[1]) - 1}."),
        (r"^layer1\.", "first."),
    )
    names = ["head.weight", "s3.conv", "s2.conv", "other"]
    assert [apply_rules(rules, name) for name in names] == ["fc.weight", "layer2.conv", "first.conv", "other"]
