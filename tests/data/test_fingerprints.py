import time

import numpy as np
from PIL import Image

from mmaction_lite.data.tools.fingerprints import fingerprint, similar_pairs


def picture(seed, size=(160, 120)):
    """Return a smooth random picture, uint8 (h, w, 3)."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC))


def test_copies_of_another_size_brightness_or_quality_are_similar_and_other_pictures_are_not():
    pictures = [fingerprint(picture(seed)) for seed in range(200)]
    assert len(set(pictures)) == 200
    changed = [
        fingerprint(picture(0, (320, 240))),
        fingerprint((picture(1) * 0.8 + 10).astype(np.uint8)),
        fingerprint(picture(2) // 16 * 16),
    ]
    others = [fingerprint(picture(seed)) for seed in range(1000, 1200)]
    assert similar_pairs(pictures, [*others, *changed]) == [(0, 200), (1, 201), (2, 202)]


def test_flat_and_tiny_pictures_are_similar_to_none():
    assert fingerprint(np.zeros((48, 64, 3), np.uint8)) == 0
    assert fingerprint(np.full((4, 64, 3), 200, np.uint8)) == 0
    assert similar_pairs([0, 0], [0]) == []
    assert similar_pairs([], [5]) == []


def test_many_equal_fingerprints_take_little_time():
    start = time.process_time()
    assert len(similar_pairs([7] * 20_000, [7] * 200)) == 200
    assert time.process_time() - start < 2
