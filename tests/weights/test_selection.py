"""Checkpoints as frameworks nest and prefix them: the weights are found, and choices are said."""

import re

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mmaction_lite.errors import UserError
from mmaction_lite.models import tsn_r10
from mmaction_lite.weights.converters import convert
from mmaction_lite.weights.converters.files import find_weights
from mmaction_lite.weights.converters.selection import choose_holder, describe_other, in_float, plain_names

PLAIN = {"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}
MEAN = {"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}


def prefixed(prefix: str, weights: dict) -> dict:
    return {f"{prefix}{name}": weight for name, weight in weights.items()}


@pytest.mark.parametrize(
    ("checkpoint", "note"),
    [
        ({"state_dict": PLAIN, "state_dict_ema": MEAN}, "state_dict_ema, .*, is loaded, not state_dict"),
        ({"model": PLAIN, "model_ema": MEAN, "optimizer": {}}, "model_ema, .*, is loaded, not model"),
        ({"model": PLAIN, "ema": {"decay": 0.9, "module": prefixed("module.", MEAN)}}, "ema, .* not model"),
        ({"state_dict": PLAIN, "ema_state_dict": MEAN}, "ema_state_dict, .* not state_dict"),
        (
            {"state_dict": MEAN, "ema_state_dict": PLAIN, "message_hub": {}},  # MMEngine swaps them
            "state_dict, the averaged weights .*, is loaded, not ema_state_dict",
        ),
        ({"ema_model": MEAN}, "ema_model, the averaged weights .EMA., is loaded$"),
        (
            {"state_dict": prefixed("model.", PLAIN) | prefixed("ema_model.", MEAN)},
            "entries ema_model.…, .* not the 2 other",
        ),
        (
            {
                "state_dict": prefixed("net.", PLAIN)
                | prefixed("ema.module.", MEAN)
                | {"ema.n_averaged": torch.ones(())}
            },
            "entries ema.…",
        ),
        (
            {"state_dict": MEAN | {f"ema_{k.replace('.', '_')}": v for k, v in PLAIN.items()}},  # MMCV
            "usual names, which hold averaged weights .* not the 2 entries ema_…",
        ),
        ({"n_averaged": torch.tensor(9), **prefixed("module.", MEAN)}, "the weights are an average"),
    ],
)
def test_averaged_weights_are_chosen_and_said(checkpoint, note):
    weights, notes = find_weights(checkpoint)
    torch.testing.assert_close(weights, MEAN)
    assert len(notes) == 1
    assert re.search(note, notes[0]), notes


def test_numbers_about_an_average_are_no_weights():
    weights, notes = find_weights({"state_dict": PLAIN, "ema": {"decay": 0.999, "updates": 3}})
    assert (weights, notes) == (PLAIN, [])
    assert choose_holder({"model": PLAIN, "ema": None}) == (PLAIN, [])


def test_the_last_checkpoint_of_this_package_gives_its_last_weights():
    weights, notes = find_weights({"card": "{}", "model": PLAIN, "average": prefixed("module.", MEAN)})
    assert weights == PLAIN
    assert notes == ["model, the weights of the last step, is loaded, not average; best.pt has these"]


def test_a_real_average_of_pytorch_fills_the_network():
    model = tsn_r10(num_classes=2)
    average = AveragedModel(model)
    average.update_parameters(model)
    conversion = convert(average.state_dict(), tsn_r10(num_classes=2))
    assert not conversion.reinitialized
    assert "note: the weights are an average" in str(conversion)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "model._orig_mod.",
        "model.module.",
        "_fsdp_wrapped_module.",
        "model._fsdp_wrapped_module._checkpoint_wrapped_module.",
    ],
)
def test_prefixes_of_wrappers_are_removed(prefix):
    assert plain_names(prefixed(prefix, PLAIN)) == (PLAIN, [])


def test_wrappers_inside_of_names_are_removed_unless_the_network_has_them():
    wrapped = {"backbone._orig_mod.conv.weight": torch.ones(1), "fc.weight": torch.ones(1)}
    assert plain_names(wrapped)[0].keys() == {"backbone.conv.weight", "fc.weight"}
    assert plain_names(wrapped, known=wrapped)[0].keys() == wrapped.keys()


def test_a_compiled_and_wrapped_network_fills_its_own_form():
    model = tsn_r10(num_classes=2)
    wrapped = torch.compile(nn.DataParallel(model), backend="eager")
    assert not convert(wrapped.state_dict(), tsn_r10(num_classes=2)).reinitialized  # pyright: ignore


def test_a_lightning_checkpoint_without_its_loss_and_metrics():
    checkpoint = {
        "pytorch-lightning_version": "2.5.0",
        "epoch": 3,
        "state_dict": prefixed("model.", PLAIN)
        | {
            "criterion.weight": torch.ones(2),
            "train_acc.total": torch.tensor(3),
            "loss_fn.scale": torch.ones(1),
        },
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "hyper_parameters": {"lr": 0.1},
        "callbacks": {},
    }
    weights, notes = find_weights(checkpoint)
    assert weights == PLAIN
    assert notes == ["3 entries beside the network are left out, such as criterion.weight"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_other_precisions_are_loaded(dtype):
    model = tsn_r10(num_classes=2)
    narrow = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    other = tsn_r10(num_classes=2)
    conversion = convert(narrow, other)
    name = "backbone.conv1.weight"
    torch.testing.assert_close(other.state_dict()[name], narrow[name].float(), rtol=0, atol=0)
    assert len(conversion.notes) == (dtype.itemsize == 1)


def test_quantized_weights_with_scales_are_refused():
    quantized = {"fc.weight": torch.ones(2, 2).to(torch.float8_e4m3fn), "fc.weight_scale": torch.ones(1)}
    with pytest.raises(
        UserError, match=r"8-bit floating-point numbers with scale factors, such as fc\.weight_scale"
    ):
        in_float(quantized)


def test_checkpoints_without_weights_say_what_they_are():
    for checkpoint in ({"state": {}, "param_groups": []}, {"shadow_params": [torch.ones(1)]}):
        assert describe_other(checkpoint)
        with pytest.raises(UserError, match=f"it holds {describe_other(checkpoint)[:20]}"):
            find_weights(checkpoint)
    with pytest.raises(UserError, match="the state of an optimizer"):
        find_weights({"model": {"state": {}, "param_groups": []}})
