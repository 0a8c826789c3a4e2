"""V-JEPA 2.1 (arXiv:2603.14482): builders. `vjepa` has the network."""

from mmaction_lite.models.vjepa import VJepa, build_vjepa
from mmaction_lite.settings import PositiveFloat, PositiveInt, Probability


def vjepa21_base(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 768,
    depth: PositiveInt = 12,
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    segments: PositiveInt = 1,
    pool_depth: PositiveInt = 4,
    pool_heads: PositiveInt | None = None,
    pool_eps: PositiveFloat = 1e-5,
) -> VJepa:
    """Build V-JEPA 2.1 with ViT-B; arguments as in `vjepa2.vjepa2_large`."""
    return build_vjepa(
        "2.1",
        (width, depth, heads, 4 * width),
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        segments=segments,
        pool=(pool_depth, pool_heads, pool_eps),
    )


def vjepa21_large(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 1024,
    depth: PositiveInt = 24,
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    segments: PositiveInt = 1,
    pool_depth: PositiveInt = 4,
    pool_heads: PositiveInt | None = None,
    pool_eps: PositiveFloat = 1e-5,
) -> VJepa:
    """Build V-JEPA 2.1 with ViT-L; arguments as in `vjepa21_base`."""
    return build_vjepa(
        "2.1",
        (width, depth, heads, 4 * width),
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        segments=segments,
        pool=(pool_depth, pool_heads, pool_eps),
    )


def vjepa21_giant(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 1408,
    depth: PositiveInt = 40,
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    segments: PositiveInt = 1,
    pool_depth: PositiveInt = 4,
    pool_heads: PositiveInt | None = None,
    pool_eps: PositiveFloat = 1e-5,
) -> VJepa:
    """Build V-JEPA 2.1 with ViT-g; arguments as in `vjepa21_base`."""
    return build_vjepa(
        "2.1",
        (width, depth, heads, width * 48 // 11),
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        segments=segments,
        pool=(pool_depth, pool_heads, pool_eps),
    )


def vjepa21_gigantic(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 1664,
    depth: PositiveInt = 48,
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    segments: PositiveInt = 1,
    pool_depth: PositiveInt = 4,
    pool_heads: PositiveInt | None = None,
    pool_eps: PositiveFloat = 1e-5,
) -> VJepa:
    """Build V-JEPA 2.1 with ViT-G; arguments as in `vjepa21_base`."""
    return build_vjepa(
        "2.1",
        (width, depth, heads, width * 64 // 13),
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        segments=segments,
        pool=(pool_depth, pool_heads, pool_eps),
    )
