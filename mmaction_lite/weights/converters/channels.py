"""Weights for pixels in the order blue, green, red (BGR), converted for RGB.

MMAction2 reverses the channels before the normalization, so its mean and standard deviation are in the order
BGR (`to_bgr` of `Normalize` in 0.x, `to_rgb` of `ActionDataPreprocessor` in 1.x, which reverses decoded RGB).
PySlowFast reverses them after the normalization (`REVERSE_INPUT_CHANNEL`).
"""

from collections.abc import Mapping

from torch import Tensor, nn

from mmaction_lite.models.network import layers

COLORS = 3


def reverse_input_channels(weights: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], str]:
    """Reverse the input channels of the convolutions that read pixels.

    Args:
        weights: the weights by their names in the network.
        model: the network.

    Returns:
        The weights for the other order, and a note for the user, empty if no convolution reads pixels.
    """
    inputs = input_weights(model) & weights.keys()
    changed = {name: weight.flip(1) if name in inputs else weight for name, weight in weights.items()}
    note = (
        "the weights expect channels in the order BGR; the input channels of "
        f"{', '.join(sorted(inputs))} are reversed, so that the network reads RGB"
    )
    return changed, note if inputs else ""


def input_weights(model: nn.Module) -> set[str]:
    """Return the names of the weights of the convolutions that read pixels, which are in the first layer."""
    first = set(layers(model)[0].parameters())
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter in first and parameter.ndim >= 4 and parameter.shape[1] == COLORS
    }
