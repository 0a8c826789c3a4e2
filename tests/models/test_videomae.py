"""VideoMAE: positions, initial weights, drop path and layer-wise learning rates."""

import math
from typing import Any

import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.models import videomae_small
from mmaction_lite.models.videomae import VideoMAE
from mmaction_lite.models.vit import Block, sinusoid_table
from mmaction_lite.optim import AdamW


def thin(**options: Any) -> VideoMAE:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_classes": 5, "width": 12, "depth": 3, "heads": 3, "patch": 4}
    return videomae_small(**sizes | options)


def test_positions_are_the_table_of_the_flattened_index():
    model = thin().eval()
    assert not any(name.startswith("positions") for name in model.state_dict())
    torch.testing.assert_close(model.positions(7), sinusoid_table(7, 12))
    longer = model.positions(2000)
    torch.testing.assert_close(longer, sinusoid_table(2000, 12))
    torch.testing.assert_close(longer[:1568], model.positions(1568))
    model.blocks = torch.nn.ModuleList()
    for size in ((4, 8, 8), (40, 40, 40)):
        x = torch.rand(1, 3, *size)
        num_tokens = math.prod(model.grid(*size))
        with torch.inference_mode():
            expected = model.patch_embed(x) + sinusoid_table(num_tokens, 12)
            torch.testing.assert_close(model.tokens(x), expected)


def test_stored_positions_are_in_the_state_dict():
    model = thin(positions="stored")
    assert model.state_dict()["positions.table"].shape == (1568, 12)
    assert model.state_dict().keys() - thin().state_dict().keys() == {"positions.table"}
    message = "^clips have 2000 tokens; expected at most the 1568 whose positions the weights store"
    with pytest.raises(UserError, match=message):
        model(torch.rand(1, 3, 40, 40, 40))


def test_the_classifier_starts_near_zero():
    model = thin(width=192, num_classes=50)
    assert float(model.head.weight.detach().std()) == pytest.approx(2e-5, rel=0.1)
    assert float(model.get_parameter("blocks.0.mlp.fc1.weight").detach().std()) == pytest.approx(
        0.02, rel=0.1
    )


def test_drop_path_rises_linearly():
    blocks = thin(depth=5, drop_path=0.2).blocks
    rates = [block.drop_path.probability for block in blocks if isinstance(block, Block)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_layer_wise_learning_rates_are_the_published_ones():
    """Patch embedding 0, block i is i + 1, the rest last; the factor is decay^(last - number)."""
    model = thin()
    optimizer = AdamW(lr=1.0, groups="no_decay", layer_decay=0.5).build(model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[parameter]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    for name, (scale, decay) in found.items():
        number = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0
        number = 4 if name.startswith(("fc_norm", "head")) else number
        assert scale == 0.5 ** (4 - number), name
        assert decay == (0.05 if name.endswith("weight") and "norm" not in name else 0), name
