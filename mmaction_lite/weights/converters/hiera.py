"""Names of facebookresearch/hiera, which this package shares except for the classifier.

Files of the masked pre-training also hold a decoder and an output normalization, and no classifier. They lack
the normalization before the classifier.
"""

import re
from collections.abc import Collection

from mmaction_lite.weights.converters import mvit

NAME = "Hiera"

PRETRAINING = ("encoder_norm.", "multi_scale_fusion_heads.", "decoder_", "mask_token")
"""Beginnings of names that only pre-training needs."""
NORM = ("norm.weight", "norm.bias")


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from Hiera."""
    has_blocks = {"patch_embed.proj.weight", "blocks.0.attn.qkv.bias"} <= set(keys)
    changes_width = any(re.fullmatch(r"blocks\.\d+\.proj\.weight", key) for key in keys)
    return has_blocks and changes_width and not mvit.matches(keys)


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    return {
        key: None if key.startswith(PRETRAINING) else key.replace("head.projection.", "head.") for key in keys
    }


def untrained(keys: Collection[str], names: Collection[str]) -> Collection[str]:
    """Return our names of parameters that weights with these keys lack on purpose."""
    return () if any(key in NORM for key in keys) else NORM
