"""Weights of the package are for one network, also where others have the same shapes."""

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.models import slowfast_r50_8x8, tsm_r10, tsn_r10, videomae_small
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights.card import ModelCard
from mmaction_lite.weights.same_form import (
    check_same_form,
    check_same_heads,
    differing_arguments,
    stored_build,
)


@pytest.fixture
def checkpoint(recipe):
    return {"card": ModelCard.of(recipe, ("a", "b")).to_json()}


def test_the_card_names_the_network(checkpoint):
    assert stored_build(checkpoint) == ("tsm_r10", {"width": 8, "dropout": 0.2, "num_classes": 2})
    for card in (
        "",
        "[]",
        "{}",
        '{"builder": 3, "arguments": {}}',
        '{"builder": "a", "arguments": []}',
        None,
    ):
        assert stored_build({"card": card}) is None
    assert stored_build({}) is None


def test_another_network_is_refused(checkpoint):
    check_same_form(checkpoint, Build(tsm_r10, dropout=0.5))
    check_same_form({}, Build(tsn_r10))
    with pytest.raises(UserError, match="weights of tsm_r10, and the recipe builds tsn_r10"):
        check_same_form(checkpoint, Build(tsn_r10))
    with pytest.raises(UserError, match=r"shift_div=4, and .* shift_div=8, .*--set model\.shift_div=4"):
        check_same_form(checkpoint, Build(tsm_r10, shift_div=8))


def test_arguments_are_compared_with_defaults():
    build = Build(slowfast_r50_8x8, fast_first=True)
    assert differing_arguments({"num_classes": 3}, build) == [("fast_first", False, True)]
    assert differing_arguments({"fast_first": True, "lateral_kernel": 7, "dropout": 0.1}, build) == []


def test_weights_of_a_pre_training_have_the_same_heads():
    check_same_heads({"heads": 4}, Build(videomae_small, heads=4))
    check_same_heads({}, Build(videomae_small))
    check_same_heads({"heads": 4}, Build(tsm_r10))
    with pytest.raises(UserError, match=r"have heads=4, and the recipe has heads=2.* --set model\.heads=4$"):
        check_same_heads({"heads": 4}, Build(videomae_small, heads=2))
