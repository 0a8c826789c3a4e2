"""Names of the repositories MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2, which this package shares.

Their files differ in a prefix of all names: none or `backbone.` after fine-tuning, `encoder.` after
pre-training. Files of pre-training also hold a decoder and the final normalization of the encoder, which
fine-tuning replaces by `fc_norm`.
"""

from collections.abc import Collection

NAME = "VideoMAE"

PREFIXES = ("encoder.", "backbone.", "")
PRETRAINING = ("norm.", "decoder.", "encoder_to_decoder.", "mask_token")
"""Beginnings of names that only pre-training needs."""
FC_NORM = ("fc_norm.weight", "fc_norm.bias")


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from VideoMAE."""
    return _prefix(keys) is not None


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    prefix = _prefix(keys) or ""
    names = {key: key.removeprefix(prefix) for key in keys}
    if "head.weight" in names.values():
        return {**names}
    return {key: None if name.startswith(PRETRAINING) else name for key, name in names.items()}


def untrained(keys: Collection[str], names: Collection[str]) -> Collection[str]:
    """Return our names of parameters that weights with these keys lack on purpose."""
    has_norm = any(key.endswith(FC_NORM) for key in keys)
    return () if has_norm else FC_NORM


def _prefix(keys: Collection[str]) -> str | None:
    """Return the prefix of all names of the encoder; None for another network."""
    return next(
        (
            prefix
            for prefix in PREFIXES
            if f"{prefix}patch_embed.proj.weight" in keys and f"{prefix}blocks.0.attn.q_bias" in keys
        ),
        None,
    )
