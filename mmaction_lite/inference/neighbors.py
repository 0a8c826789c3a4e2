"""Nearest-neighbor search over features."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmaction_lite.data.annotations.samples import absolute
from mmaction_lite.errors import UserError
from mmaction_lite.inference.feature_files import SPANS, Features, difference


class Neighbor(NamedTuple):
    """A stored row near a query.

    Args:
        video: name of its video.
        start_seconds: start of the row in its video; NaN if the frame rate is unknown.
        end_seconds: end of the row, exclusive.
        first_frame: first frame of the row.
        end_frame: frame after the last one.
        distance: cosine distance to the query, 0 (same direction) to 2.
    """

    video: str
    start_seconds: float
    end_seconds: float
    first_frame: int
    end_frame: int
    distance: float


def rows_of(stored: Features, video: str | Path) -> Features | None:
    """Return the stored rows of a video; None if there are none."""
    name = absolute(str(video))
    if name not in stored.videos:
        return None
    return _chosen(stored, stored.video == stored.videos.index(name))


def rows_at(features: Features, seconds: float) -> Features:
    """Return the row that contains a time, of several the one whose middle is nearest to it.

    Raises:
        UserError: no row contains the time.
    """
    contains = (features.start_seconds <= seconds) & (seconds < features.end_seconds)
    if not contains.any():
        raise UserError(f"no row contains the time {seconds:g} s; expected a time inside of the video")
    middle = (features.start_seconds + features.end_seconds) / 2
    far = np.where(contains, np.abs(middle - seconds), np.inf)
    return _chosen(features, np.arange(len(features)) == far.argmin())


def nearest_rows(stored: Features, query: Features, count: int = 5) -> list[list[Neighbor]]:
    """Return the stored rows nearest to each row of a query, the nearest first.

    Rows of the query's own video that overlap with the query in time are left out.

    Args:
        stored: the features to search.
        query: features of one video or of several, with the same settings.
        count: largest number of neighbors of a row.

    Raises:
        UserError: scikit-learn is not installed, or the features have different settings.
    """
    if stored.info["fingerprint"] != query.info["fingerprint"]:
        raise UserError(
            f"the query has {difference(query.info, stored.info)} of the stored features; compute both with "
            "the same weights and settings"
        )
    nearest_neighbors = _scikit_learn()
    # Rows that are left out may be among the nearest.
    left_out = max((int(_overlaps(stored, query, row).sum()) for row in range(len(query))), default=0)
    most = max(1, min(count + left_out, len(stored)))
    search = nearest_neighbors(n_neighbors=most, metric="cosine", algorithm="brute").fit(_flat(stored))
    distances, rows = search.kneighbors(_flat(query))
    found = []
    for number in range(len(query)):
        is_own = _overlaps(stored, query, number)
        pairs = zip(rows[number], distances[number], strict=True)
        found.append([_neighbor(stored, row, far) for row, far in pairs if not is_own[row]][:count])
    return found


def _chosen(features: Features, is_chosen: np.ndarray) -> Features:
    columns = {name: getattr(features, name)[is_chosen] for name in ("values", *SPANS, "video")}
    return replace(features, **columns)


def _flat(features: Features) -> np.ndarray:
    return features.values.reshape(len(features), -1).astype(np.float32)


def _overlaps(stored: Features, query: Features, row: int) -> np.ndarray:
    """Return which stored rows show the same frames as a row of the query, bool (N,)."""
    name = query.videos[query.video[row]]
    same = np.array([other == name for other in stored.videos])[stored.video]
    return same & (stored.first_frame < query.end_frame[row]) & (query.first_frame[row] < stored.end_frame)


def _neighbor(stored: Features, row: int, distance: float) -> Neighbor:
    return Neighbor(
        video=stored.videos[stored.video[row]],
        start_seconds=float(stored.start_seconds[row]),
        end_seconds=float(stored.end_seconds[row]),
        first_frame=int(stored.first_frame[row]),
        end_frame=int(stored.end_frame[row]),
        distance=max(float(distance), 0.0),
    )


def _scikit_learn() -> Any:
    try:
        from sklearn.neighbors import NearestNeighbors
    except ImportError:
        raise UserError("the search needs scikit-learn: pip install 'mmaction-lite[analysis]'") from None
    return NearestNeighbors
