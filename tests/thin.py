"""Thin networks of every builder."""

from typing import Any

TOKEN_FAMILIES = ("videomae_", "vjepa2_", "vjepa21_")


def has_tokens(name: str) -> bool:
    """Whether a builder is that of a token network, which has a depth and heads."""
    return name.startswith(TOKEN_FAMILIES)


def thin(name: str) -> dict[str, Any]:
    """Arguments of a builder for a network that runs in milliseconds."""
    if name.startswith("swin3d_"):
        return {"width": 8, "depths": (2, 1)}
    return {"width": 32, "depth": 2} if name.startswith("vjepa") else {"width": 8}
