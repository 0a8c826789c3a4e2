"""Find clips of two splits that begin with nearly the same picture."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

ROWS, COLUMNS = 8, 9  # cells of the reduced picture
LEAST_CONTRAST = 4.0  # standard deviation of the cells; flatter pictures, such as black ones, look all alike
MOST_BITS = 3  # different bits of similar pictures
BANDS = MOST_BITS + 1  # with as many differences at most, one band of the bits is equal
MOST_CANDIDATES = 2000  # fingerprints with the same band that are compared


def fingerprint(frame: np.ndarray) -> int:
    """Return a fingerprint of 64 bits that changes little with size, brightness and compression.

    The picture is reduced to 8 x 9 gray cells; each bit is whether a cell is brighter than its left neighbor.

    Args:
        frame: uint8 (h, w, 3).

    Returns:
        the fingerprint; 0 if the picture has hardly any contrast or is smaller than the cells.
    """
    height, width = frame.shape[:2]
    if height < ROWS or width < COLUMNS:
        return 0
    gray = frame.mean(2, dtype=np.float32)
    for axis, cells in ((0, ROWS), (1, COLUMNS)):
        starts = np.arange(cells) * gray.shape[axis] // cells
        sizes = np.diff([*starts, gray.shape[axis]])
        gray = np.add.reduceat(gray, starts, axis) / np.expand_dims(sizes, 1 - axis)
    if gray.std() < LEAST_CONTRAST:
        return 0
    bits = np.packbits(gray[:, 1:] > gray[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def similar_pairs(train: Sequence[int], other: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of similar fingerprints: each one of `other` with the first similar one of `train`.

    Args:
        train: fingerprints; 0 is similar to none.
        other: fingerprints.

    Returns:
        indices in `train` and in `other`, in the order of `other`.
    """
    places: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for index, value in enumerate(train):
        for band in _bands(value) if value else ():
            places[band].append(index)
    known = np.array(train, np.uint64)
    pairs = []
    for index, value in enumerate(other):
        near = [place for band in _bands(value) for place in places.get(band, ())[:MOST_CANDIDATES]]
        if value and near:
            candidates = np.array(sorted(near))
            differences = np.unpackbits((known[candidates, None] ^ np.uint64(value)).view(np.uint8), axis=1)
            found = candidates[differences.sum(1) <= MOST_BITS]
            pairs += [(int(found[0]), index)] if len(found) else []
    return pairs


def _bands(value: int) -> list[tuple[int, int]]:
    """Return number and value of each band of the bits."""
    width = 64 // BANDS
    return [(band, value >> (band * width) & ((1 << width) - 1)) for band in range(BANDS)]
