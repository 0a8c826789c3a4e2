"""The table of networks on the page "Which model should I take?" is that of the package."""

import re

import pytest

from mmaction_lite import list_recipes, list_weights
from mmaction_lite.models.complexity import PUBLISHED_INPUTS, list_models
from tests.docs.pages import page_text

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in page_text("docs/train/choose.md").splitlines()
    if re.match(r"\| `\w+` \|", line)
]
NAMED_ELSEWHERE = {"tsm_online_r10", "tsm_r10", "tsn_r10"}  # for generated clips


@pytest.fixture(scope="module")
def costs():
    """Parameters and multiply-adds by builder and input, as the table writes them."""
    return {
        (row.builder, "{2}x{3}".format(*row.input_shape)): (
            f"{row.parameters / 1e6:.1f} M",
            f"{row.multiply_adds / 1e9:.1f} G",
        )
        for row in list_models()
    }


@pytest.mark.slow
def test_costs_are_those_of_the_networks(costs):
    for name, shape, *cells in ROWS:
        assert tuple(cells[:2]) == costs[name.strip("`"), shape], name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_accuracy_and_licences_are_those_of_recipes_and_public_weights(row):
    builder, shown, licences = row[0].strip("`"), row[4], row[5]
    entries = [entry for entry in list_weights().values() if entry.builder == builder]
    top1 = [entry.top1 for entry in entries if entry.dataset == "kinetics400" and entry.top1]
    for recipe in list_recipes().values():
        if recipe.reported and recipe.dataset == "kinetics400" and recipe.model.builder.__name__ == builder:
            top1.append(recipe.reported.top1)
    if top1:
        assert shown == f"{max(top1):g}"
    if entries:
        assert sorted({entry.license for entry in entries}) == licences.split(", ")


def test_every_family_has_a_row():
    def family(name: str) -> str:
        return name.partition("_")[0]

    assert {family(row[0].strip("`")) for row in ROWS} >= {
        family(builder) for builder in PUBLISHED_INPUTS.keys() - NAMED_ELSEWHERE
    } - {"frame", "probe"}
