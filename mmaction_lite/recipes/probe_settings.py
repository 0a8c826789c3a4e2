"""Settings of the training of a probe on stored features."""

from dataclasses import dataclass
from typing import Annotated, Literal

from mmaction_lite.settings import NOT_EMPTY, NonNegativeFloat, NonNegativeInt, PositiveFloat, check_fields


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """How features are stored, and which heads are trained on them.

    All pairs of a learning rate and a weight decay are trained side by side, each with a head of its own. The
    heads have the same initial weights and see the same batches. The best one of the validations is kept.

    Args:
        learning_rates: learning rates of the heads.
        weight_decays: weight decays of the heads.
        passes: random training views of each clip that are stored. A step uses one of them, drawn at random.
            0: the views of `Recipe.val`, without augmentation.
        storage: type of the stored features. "float32" needs twice the space and stores the exact values of
            the network.
    """

    learning_rates: Annotated[tuple[PositiveFloat, ...], NOT_EMPTY]
    weight_decays: Annotated[tuple[NonNegativeFloat, ...], NOT_EMPTY]
    passes: NonNegativeInt = 0
    storage: Literal["float16", "float32"] = "float16"

    def __post_init__(self):
        check_fields(self)

    @property
    def heads(self) -> list[tuple[float, float]]:
        """Learning rate and weight decay of every head."""
        return [(lr, decay) for lr in self.learning_rates for decay in self.weight_decays]
