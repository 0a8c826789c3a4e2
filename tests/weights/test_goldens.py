"""What the reference implementations compute from weights and inputs that a rule regenerates.

`goldens/*.json.gz` hold a reference's own names and shapes and, where it was run, its logits and one training
step. Weights come from their names (`weights`), inputs from a seed (`draw`): no weight file is needed.
"""

import gzip
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite import models
from mmaction_lite.weights.converters import TABLES, convert

FOLDER = Path(__file__).parents[1] / "goldens"

BUILDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "hiera__base_16x224": ("hiera_base", {}),
    "mmaction2__i3d_r50_32x2x1": ("i3d_r50", {}),
    "mmaction2__i3d_r50_nl_dot_32x2x1": ("i3d_r50", {"non_local": "dot_product"}),
    "mmaction2__r2plus1d_r34_8x8x1": ("r2plus1d_r34", {}),
    "mmaction2__slowfast_r50_4x16x1": ("slowfast_r50_4x16", {}),
    "mmaction2__slowonly_r50_4x16x1": ("slowonly_r50", {}),
    "mmaction2__tsm_r50_1x1x8": ("tsm_r50", {}),
    "mmaction2__tsn_r50_1x1x3": ("tsn_r50", {}),
    "pyslowfast__SLOWFAST_4x16_R50": ("slowfast_r50_4x16", {}),
    "pyslowfast__SLOW_8x8_R50": ("slowonly_r50", {}),
    "pytorchvideo__slow_r50": ("slowonly_r50", {}),
    "pytorchvideo__x3d_m": ("x3d_m", {}),
    "torchvision__mvit_v2_s": ("mvit_v2_small", {}),
    "torchvision__r2plus1d_18": ("r2plus1d_r18", {}),
    "torchvision__swin3d_t": ("swin3d_tiny", {}),
    "tsm_mit__tsm_r50_8f": ("tsm_r50", {}),
    "uniformerv2__b16_8x224_k400": ("uniformerv2_base", {}),
    "videomae__vit_small_16x224": ("videomae_small", {}),
    "vjepa2__reduced_probe": ("vjepa2_large", {"width": 192, "depth": 4, "num_classes": 174}),
    "vjepa21__reduced_probe": ("vjepa21_base", {"width": 192, "num_classes": 174}),
}
QUICK = {"tsm_mit__tsm_r50_8f", "mmaction2__slowonly_r50_4x16x1", "vjepa2__reduced_probe"}


def read(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


GOLDENS = {name: read(name) for name in BUILDERS}
RUN = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BUILDERS]
TRAINED = [
    pytest.param(name, marks=pytest.mark.slow) for name, golden in GOLDENS.items() if "train_step" in golden
]


def build(name: str) -> Any:
    builder, arguments = BUILDERS[name]
    return getattr(models, builder)(**arguments)


def weights(golden: dict[str, Any]) -> dict[str, Tensor]:
    """The reference's state dict: every tensor drawn from its own name."""
    state_dict, checksum = {}, 0
    for key, shape in sorted(golden["shapes"].items()):
        if key.endswith(("num_batches_tracked", "relative_position_index")):
            state_dict[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
        if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
            values = rng.uniform(0.5, 1.5, shape)
        elif len(shape) <= 1:
            values = rng.normal(0, 0.1, shape)
        else:
            values = golden["gain"] * rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
        values = np.asarray(values, np.float32)
        checksum = zlib.crc32(values.tobytes(), checksum)
        state_dict[key] = torch.from_numpy(values)
    assert checksum == golden["fill_crc32"], "the weights differ from those that the reference was given"
    return state_dict


def draw(shape: list[int], seed: int, name: str) -> Tensor:
    """The input in our layout (V, C, T, H, W), V the views."""
    values = np.random.Generator(np.random.PCG64(seed)).normal(0, 1, shape).astype(np.float32)
    x = torch.from_numpy(values)
    if name.startswith("tsm_mit__"):  # (N, T·C, H, W)
        return x.unflatten(1, (-1, 3)).transpose(1, 2)
    if x.ndim == 6:  # (N, V, C, T, H, W)
        return x.flatten(0, 1)
    frames = {"mmaction2__tsn_r50_1x1x3": 3, "mmaction2__tsm_r50_1x1x8": 8}.get(name)
    if frames:  # (N, V·T, C, H, W)
        return x.unflatten(1, (-1, frames)).flatten(0, 1).transpose(1, 2)
    return x


def error(ours: Tensor, reference: list[Any]) -> float:
    """Largest difference, relative to the largest reference value."""
    expected = torch.tensor(reference, dtype=ours.dtype).reshape(ours.shape)
    return float((ours - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", RUN)
def test_logits_are_the_references(name: str, tmp_path: Path) -> None:
    golden = GOLDENS[name]
    model = build(name)
    conversion = convert(weights(golden), model)
    assert not conversion.reinitialized
    model.eval()
    x = draw(golden["input_shape"], 0, name)
    with torch.inference_mode():
        logits = model(x)
        assert error(logits, golden["logits"]) <= 1e-5
        if views := golden.get("multi_view"):
            logits_of_views = model(draw(views["input_shape"], 1, name))
            if len(views["logits_per_view"]) == 1:  # TSN averages the views before the softmax
                logits_of_views = logits_of_views.mean(0, keepdim=True)
            assert error(logits_of_views, views["logits_per_view"]) <= 1e-5
            assert error(logits_of_views.softmax(1).mean(0), views["pred_score"]) <= 1e-5
        if larger := golden.get("fully_conv_eval"):
            of_windows = model(x, window=larger["train_crop"] // 32).softmax(2)
            assert error(of_windows.mean(1)[0], larger["scores"]) <= 1e-5

        save_file(model.state_dict(), tmp_path / "weights.safetensors")
        builder, arguments = BUILDERS[name]
        again = getattr(models, builder)(**arguments, **conversion.arguments).eval()
        again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        assert torch.equal(again(x), logits)


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step_is_the_references(name: str) -> None:
    golden = GOLDENS[name]
    step = golden["train_step"]
    model = build(name)
    convert(weights(golden), model)
    keys = golden["shapes"]
    is_normalized_by_batch = any(key.endswith("running_var") for key in keys)
    # Ill-conditioned steps run in float64: the errors that are left are the references'.
    dtype = torch.float64 if is_normalized_by_batch else torch.float32
    model.to(dtype).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    logits = model(draw(golden["input_shape"], 0, name).to(dtype))
    loss = functional.cross_entropy(logits, torch.tensor([7]))
    loss.backward()
    # Batch normalization over one clip is ill-conditioned: the references' own float32 gradients are good to
    # some 1e-3 in the middle and some 1e-2 at worst, whatever the precision on our side.
    assert float(loss.detach()) == pytest.approx(step["loss"], abs=5e-4)
    assert error(logits.detach(), step["logits"]) <= 3e-4
    names = next(table for table in TABLES if table.matches(keys)).rename(keys)
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    errors = []
    for key, expected in step["grad_l2"].items():
        name = names[key]
        parts = [name] if name in gradients else [name.replace(".qkv.", f".{part}.") for part in ("q", "kv")]
        gradient = torch.cat([gradients[part] for part in parts])
        if expected > 1e-6:
            errors.append(abs(float(gradient.double().norm()) / expected - 1))  # sums in float64
    assert np.median(errors) < (2e-3 if is_normalized_by_batch else 2e-5)
    assert max(errors) < (6e-2 if is_normalized_by_batch else 2e-4)
    ours = model.state_dict()
    for key, expected in step.get("running_mean", []) + step.get("running_var", []):
        torch.testing.assert_close(
            ours[names[key]][:4], torch.tensor(expected, dtype=dtype), atol=3e-5, rtol=0
        )
