"""Options of `timeline` that say how scores become segments."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmaction_lite.errors import UserError

if TYPE_CHECKING:
    from mmaction_lite.inference.segments import Rule

Switch = Annotated[
    float | None,
    typer.Option(
        min=0, help="Cost of a change of class, in seconds; more gives fewer segments [default: 1.5]."
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Leave out segments with a lower mean score [default: 0.3]."),
]
Enter = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Thresholds instead of the best path: a segment begins at this score [default: 0.5].",
    ),
]
Leave = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="With thresholds: a segment ends below this score [default: 0.3]."),
]
Smooth = Annotated[
    float | None,
    typer.Option(min=0, help="With thresholds: moving average over the scores, in seconds [default: 1]."),
]
Background = Annotated[
    list[str] | None, typer.Option(help="Class without segments, such as 'nothing'; repeatable.")
]
MinLength = Annotated[float, typer.Option(min=0, help="Length of the shortest segment, in seconds.")]
Merge = Annotated[
    float, typer.Option(min=0, help="Merge segments of a class across gaps up to this length, in seconds.")
]


def rule_of(
    path: Mapping[str, float | None], thresholds: Mapping[str, float | None], **common: Any
) -> "Rule":
    """Return the rule of segments: thresholds if one of their options is given, otherwise the best path.

    Args:
        path: options of `PathRule`; None: default.
        thresholds: options of `SegmentRule`; None: default.
        common: options of both.

    Raises:
        UserError: options of both are given, or a value is out of range.
    """
    from mmaction_lite.inference.segments import PathRule, SegmentRule

    given, other = ({k: v for k, v in options.items() if v is not None} for options in (path, thresholds))
    if given and other:
        raise UserError(
            f"--{next(iter(given))} and --{next(iter(other))} are given; --{' and --'.join(path)} belong to "
            f"the best path, --{', --'.join(thresholds)} to thresholds. Omit the options of one of them"
        )
    return SegmentRule(**other, **common) if other else PathRule(**given, **common)
