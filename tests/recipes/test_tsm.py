"""Recipes of TSM; the published values are in `test_published.py`."""

from dataclasses import replace

from mmaction_lite.models import tsm_r10
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.recipes.tsm import (
    tsm_online_mobilenetv2_8x4x1_50e_jester_rgb,
    tsm_online_r10_8x8x1_12e_motions_rgb,
    tsm_online_r50_8x4x1_50e_jester_rgb,
    tsm_online_r50_8x8x1_50e_kinetics400_rgb,
    tsm_r10_1x1x8_12e_motions_rgb,
    tsm_r50_1x1x8_25e_hmdb51_rgb,
    tsm_r50_1x1x8_25e_ucf101_rgb,
    tsm_r50_1x1x8_50e_jester_rgb,
    tsm_r50_1x1x8_50e_kinetics400_rgb,
    tsm_r50_1x1x8_50e_sthv1_rgb,
)
from mmaction_lite.recipes.tsn import tsn_r10_1x1x8_12e_motions_rgb


def test_the_small_recipes_differ_in_the_network_alone():
    """So the demo compares networks and nothing else."""
    small = replace(tsn_r10_1x1x8_12e_motions_rgb(), model=Build(tsm_r10, dropout=0.0))
    assert tsm_r10_1x1x8_12e_motions_rgb() == small


def test_online_recipes_differ_from_the_others_in_network_and_clips():
    pairs = {
        tsm_online_r10_8x8x1_12e_motions_rgb: tsm_r10_1x1x8_12e_motions_rgb,
        tsm_online_r50_8x8x1_50e_kinetics400_rgb: tsm_r50_1x1x8_50e_kinetics400_rgb,
        tsm_online_r50_8x4x1_50e_jester_rgb: tsm_r50_1x1x8_50e_jester_rgb,
        tsm_online_mobilenetv2_8x4x1_50e_jester_rgb: tsm_r50_1x1x8_50e_jester_rgb,
    }
    for online, offline in pairs.items():
        found, other = online(), offline()
        views = {
            name: replace(getattr(other, name), clips=found.test.clips) for name in ("train", "val", "test")
        }
        is_mobile = found.model.builder.__name__ == "tsm_online_mobilenetv2"
        initial = "ImageNet MobileNetV2" if is_mobile else other.starts_from
        assert found == replace(other, model=found.model, reported=None, starts_from=initial, **views)
        assert found.name.startswith(f"{found.model.builder.__name__}_8x")
        assert found.test.clips.num_clips == 1


def test_fine_tuning_of_the_two_small_data_sets_is_the_same():
    ucf, hmdb = tsm_r50_1x1x8_25e_ucf101_rgb(), tsm_r50_1x1x8_25e_hmdb51_rgb()
    assert replace(ucf, dataset="hmdb51", reported=hmdb.reported) == hmdb
    assert ucf.starts_from == "Kinetics-400 TSM"


def test_only_gestures_whose_classes_change_sides_are_mirrored():
    assert tsm_r50_1x1x8_50e_sthv1_rgb().train.flip == 0
    assert tsm_r50_1x1x8_50e_jester_rgb().train.flip == 0.5
