"""Temperature of calibrated probabilities (Guo et al., ICML 2017, arXiv:1706.04599, section 4.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from mmaction_lite.settings import at_least, at_most, check_fields

Scale = Literal["log_probability", "log_odds"]

LOWEST, HIGHEST = 0.01, 100.0  # of a temperature


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Divide the logits that belong to averaged probabilities by a number.

    A temperature above 1 makes probabilities less confident, one below 1 more confident. The order of the
    classes stays, so top-1 and top-5 stay. The division follows the averaging over views: the logits that
    belong to probabilities p are log(p) if the classes exclude each other (softmax) and log(p / (1 - p))
    if each class is a binary decision (sigmoid).

    Args:
        value: the temperature, from 0.01 to 100.
        scale: the logits of probabilities: "log_probability" for softmax, "log_odds" for sigmoid.
    """

    value: Annotated[float, at_least(LOWEST), at_most(HIGHEST)]
    scale: Scale = "log_probability"

    def __post_init__(self):
        check_fields(self)

    def apply(self, scores: Tensor, probabilities: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the calibrated probabilities, of the shape and dtype of `scores`.

        Args:
            scores: probabilities (..., K). Rows of NaN stay NaN.
            probabilities: maps logits (..., K) to probabilities; see `Task.probabilities`.
        """
        logits = scores.log() if self.scale == "log_probability" else scores.logit()
        return probabilities(logits / self.value)

    def __str__(self) -> str:
        return f"temperature {self.value:.4g}"
