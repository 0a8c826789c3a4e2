"""The nearest rows are those of a direct computation, without the query itself."""

from dataclasses import replace

import numpy as np
import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.inference.feature_files import Features, join_features
from mmaction_lite.inference.neighbors import nearest_rows, rows_at, rows_of
from tests.inference.test_feature_files import features

pytest.importorskip("sklearn")


def stored() -> Features:
    parts = [features(f"/v/{i}.mp4", 6, (2, 5)) for i in range(4)]
    rng = np.random.default_rng(0)
    parts = [
        replace(
            part, values=rng.normal(size=(6, 2, 5)).astype(np.float32), end_seconds=part.start_seconds + 1
        )
        for part in parts
    ]
    return join_features(parts)


def test_the_nearest_rows_are_those_of_a_direct_computation():
    rows = stored()
    query = rows_of(rows, "/v/2.mp4")
    assert query is not None
    assert len(query) == 6
    assert rows_of(rows, "/v/9.mp4") is None
    flat = rows.values.reshape(24, 10)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    for number, near in enumerate(nearest_rows(rows, query, 4)):
        own = 12 + number
        distances = 1 - unit @ unit[own]
        # The window before, itself and the window after show the same frames.
        distances[[i for i in (own - 1, own, own + 1) if 12 <= i < 18]] = np.inf
        order = np.argsort(distances)[:4]
        assert [(one.video, one.first_frame) for one in near] == [
            (f"/v/{i // 6}.mp4", i % 6 * 10) for i in order
        ]
        np.testing.assert_allclose([one.distance for one in near], distances[order], atol=1e-5)
        assert near[0].end_seconds == near[0].start_seconds + 1


def test_more_neighbors_than_rows_are_all_rows():
    rows = stored()
    other = replace(rows_at(rows, 0.2), videos=("/other.mp4",) * 4)
    assert len(other) == 1
    assert len(nearest_rows(rows, other, 100)[0]) == 24


def test_a_time_selects_the_row_around_it():
    rows = rows_of(stored(), "/v/1.mp4")
    assert rows is not None
    assert rows_at(rows, 1.2).start_seconds.tolist() == [0.5]
    assert rows_at(rows, 0.0).first_frame.tolist() == [0]
    with pytest.raises(UserError, match=r"no row contains the time 99 s"):
        rows_at(rows, 99)


def test_features_of_other_settings_are_refused():
    rows = stored()
    other = replace(rows, info=rows.info | {"fingerprint": "f1", "layer": "fc"})
    with pytest.raises(UserError, match=r"the query has other features \(layer fc, not conv\)"):
        nearest_rows(rows, other)
