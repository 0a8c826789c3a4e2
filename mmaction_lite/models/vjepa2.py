"""V-JEPA 2 (Assran et al., arXiv:2506.09985): builders. `vjepa` has the network."""

from mmaction_lite.models.vjepa import VJepa, build_vjepa
from mmaction_lite.settings import NonNegativeInt, PositiveFloat, PositiveInt, Probability


def vjepa2_large(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 1024,
    depth: PositiveInt = 24,
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    segments: PositiveInt = 1,
    levels: tuple[NonNegativeInt, ...] = (),
    pool_depth: PositiveInt = 4,
    pool_heads: PositiveInt | None = None,
    pool_eps: PositiveFloat = 1e-5,
) -> VJepa:
    """Build V-JEPA 2 with ViT-L and an attentive probe.

    Args:
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        width: channels of the tokens.
        depth: number of blocks of the encoder.
        heads: number of heads of the encoder; None: heads of 64 channels.
        drop_path: see `vjepa.VJepaEncoder`.
        segments: see `vjepa.VJepa`.
        levels: see `vjepa.VJepaEncoder`.
        pool_depth: number of blocks of the pooler, the cross-attention included.
        pool_heads: number of heads of the pooler; None: 16, see `attentive_pool.default_heads`.
        pool_eps: epsilon of the normalizations of the pooler.
    """
    return build_vjepa(
        "2",
        (width, depth, heads, 4 * width),
        levels=levels,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        segments=segments,
        pool=(pool_depth, pool_heads, pool_eps),
    )


def vjepa2_huge(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 1280,
    depth: PositiveInt = 32,
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    segments: PositiveInt = 1,
    levels: tuple[NonNegativeInt, ...] = (),
    pool_depth: PositiveInt = 4,
    pool_heads: PositiveInt | None = None,
    pool_eps: PositiveFloat = 1e-5,
) -> VJepa:
    """Build V-JEPA 2 with ViT-H; arguments as in `vjepa2_large`."""
    return build_vjepa(
        "2",
        (width, depth, heads, 4 * width),
        levels=levels,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        segments=segments,
        pool=(pool_depth, pool_heads, pool_eps),
    )


def vjepa2_giant(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 1408,
    depth: PositiveInt = 40,
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    segments: PositiveInt = 1,
    levels: tuple[NonNegativeInt, ...] = (),
    pool_depth: PositiveInt = 4,
    pool_heads: PositiveInt | None = None,
    pool_eps: PositiveFloat = 1e-5,
) -> VJepa:
    """Build V-JEPA 2 with ViT-g; arguments as in `vjepa2_large`."""
    return build_vjepa(
        "2",
        (width, depth, heads, width * 48 // 11),
        levels=levels,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        segments=segments,
        pool=(pool_depth, pool_heads, pool_eps),
    )
