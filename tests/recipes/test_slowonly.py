"""Recipes of SlowOnly; the published values are in `test_published.py`."""

from dataclasses import replace

from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.recipes.slowonly import (
    dense_views,
    slowonly_r50_4x16x1_256e_kinetics400_rgb,
    slowonly_r50_8x8x1_256e_kinetics400_rgb,
)


def test_views_of_training_and_of_both_protocols_have_the_same_clips():
    clips = DenseClips(clip_len=4, frame_interval=16)
    train, val, test = dense_views(clips)
    assert train.clips == val.clips == replace(test.clips, num_clips=1) == clips
    assert (val.num_views, test.num_views) == (1, 30)
    assert train.view_shape == (4, 224, 224, 3)


def test_4x16_and_8x8_differ_in_clips_and_result_alone():
    one, other = slowonly_r50_4x16x1_256e_kinetics400_rgb(), slowonly_r50_8x8x1_256e_kinetics400_rgb()
    views = {"train": other.train, "val": other.val, "test": other.test}
    assert replace(one, **views, reported=other.reported) == other
