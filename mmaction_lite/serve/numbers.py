"""Numbers for JSON, which has neither infinity nor NaN."""

import math


def finite(number: float) -> float | None:
    """Return a number for JSON; None in place of infinity and NaN."""
    return number if math.isfinite(number) else None
