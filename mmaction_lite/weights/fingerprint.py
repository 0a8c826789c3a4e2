"""Fingerprints of networks and of weights.

The fingerprint of a network, its logits on a generated clip, compares conversions on different machines. That
of weights is a checksum of the tensors.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.weights.card import card_of

SIDE = 112  # pixels; smaller than in any published test, so that every network takes seconds on a CPU
TOLERANCE = 1e-3  # of the largest logit: convolutions of different processors differ by about 1e-5


def generated_clip(num_frames: int) -> Tensor:
    """Return a clip of moving stripes, uint8 (1, 1, T, 112, 112, 3), computed with integers alone."""
    time = torch.arange(num_frames).view(-1, 1, 1, 1)
    row = torch.arange(SIDE).view(1, -1, 1, 1)
    column = torch.arange(SIDE).view(1, 1, -1, 1)
    channel = torch.arange(3).view(1, 1, 1, -1)
    wave = (row * (3 + channel) + column * 5 + time * 11 + channel * 40 + row * column // 16) % 512
    return (255 - (wave - 255).abs().clamp(max=255)).to(torch.uint8)[None, None]


def fingerprint_of_weights(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """Return the checksum of the parameters and buffers of a model, 16 hexadecimal digits of SHA-256.

    It does not depend on the file format, on the model card or on the device.

    Args:
        weights: a model, or its state dict.
    """
    checksum = hashlib.sha256()
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    for name, tensor in sorted(state.items()):
        checksum.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        checksum.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()[:16]


@torch.no_grad()
def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Return the fingerprint of a model that `load` returned.

    Returns:
        A dict for JSON: `classes` (number of logits), `mean`, `std` and `l2` of the logits, and `top`, the
        five largest logits as pairs of index and value, all rounded to six digits.
    """
    card = card_of(model)
    clip = card.test.normalize(generated_clip(card.test.views.clips.clip_len)[:, 0])
    logits = model.eval()(clip).double()[0]
    values, indices = logits.topk(min(5, len(logits)))
    return {
        "classes": len(logits),
        "mean": _rounded(logits.mean().item()),
        "std": _rounded(logits.std(correction=0).item()),
        "l2": _rounded(logits.norm().item()),
        "top": [[i, _rounded(v)] for i, v in zip(indices.tolist(), values.tolist(), strict=True)],
    }


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return the differences between two fingerprints that are not rounding errors; empty if they agree."""
    if found["classes"] != expected["classes"]:
        return [f"{found['classes']} classes instead of {expected['classes']}"]
    scale = TOLERANCE * max(abs(value) for _, value in expected["top"])
    rows = [(name, found[name], expected[name]) for name in ("mean", "std")]
    rows.append(
        ("l2", found["l2"] / math.sqrt(found["classes"]), expected["l2"] / math.sqrt(found["classes"]))
    )
    ours = dict(found["top"])
    rows += [(f"logit {index}", ours.get(index, math.nan), value) for index, value in expected["top"][:1]]
    return [
        f"{name} is {value:g}, expected {wanted:g}"
        for name, value, wanted in rows
        if not abs(value - wanted) <= scale
    ]


def check_fingerprint(found: Mapping[str, Any], expected: Mapping[str, Any], name: str) -> None:
    """Check a fingerprint against one that the catalogue stores.

    Raises:
        UserError: they differ.
    """
    if differing := differences(found, expected):
        raise UserError(
            f"{name}: the logits on the generated clip are not the verified ones: {', '.join(differing)}. "
            "The file or its conversion is another one; delete the converted file and repeat"
        )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
