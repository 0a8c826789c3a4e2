"""Thin networks of every builder."""

from typing import Any

TOKEN_FAMILIES = ("videomae_", "vjepa2_", "vjepa21_", "hiera_", "uniformerv2_")
FIXED_SIZES: dict[str, dict[str, Any]] = {
    "uniformerv2_": {"width": 32, "depth": 2, "levels": 1, "stem": 3, "size": 32, "patch": 16},
    "hiera_": {"width": 8, "depths": (1, 1, 1, 1), "frames": 8, "size": 64},
}
"""Arguments of families whose networks are for clips of one size."""


def has_tokens(name: str) -> bool:
    """Whether a builder is that of a token network, which has a grid."""
    return name.startswith(TOKEN_FAMILIES)


def thin(name: str) -> dict[str, Any]:
    """Arguments of a builder for a network that runs in milliseconds."""
    if name.startswith("swin3d_"):
        return {"width": 8, "depths": (2, 1)}
    for family, arguments in FIXED_SIZES.items():
        if name.startswith(family):
            return arguments
    if name.startswith("x3d_"):
        return {"width": 8, "depth_factor": 0.4}
    if name.startswith("mvit_"):
        return {"width": 8, "depths": (1, 1, 1, 1)}
    return {"width": 32, "depth": 2} if name.startswith("vjepa") else {"width": 8}


def clip_size(name: str) -> tuple[int, int, int]:
    """(frames, height, width) of clips for the thin network."""
    if "size" in thin(name):
        return thin(name).get("frames", 8), thin(name)["size"], thin(name)["size"]
    return (16 if name.startswith("slowfast") else 8), (32 if has_tokens(name) else 40), 32
