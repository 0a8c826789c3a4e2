"""V-JEPA 2.1: attentive probes on the frozen encoder (2026, arXiv:2603.14482).

The authors publish no probes of 2.1; their paper trains them as those of V-JEPA 2. For the settings and the
deviations see `recipes.vjepa2`. The encoders B and L are distilled, and are trained on frames of 384 pixels.
"""

from dataclasses import replace

from mmaction_lite.data.views.samplers import SegmentWindows
from mmaction_lite.models import vjepa21_base, vjepa21_large
from mmaction_lite.recipes.recipe import Build, Recipe, Reported
from mmaction_lite.recipes.vjepa2 import attentive_probe


def vjepa21_base_16x4x2_20e_sthv2_rgb() -> Recipe:
    """Return the probe of ViT-B on Something-Something v2: two windows of 16 frames of 384 pixels."""
    clips = SegmentWindows(window_len=16, frame_interval=4, num_segments=2)
    recipe = attentive_probe(Build(vjepa21_base, segments=2), clips, 384)
    return replace(recipe, starts_from="V-JEPA 2.1 ViT-B")


def vjepa21_large_16x4x2_20e_sthv2_rgb() -> Recipe:
    """Return the probe of ViT-L on Something-Something v2: two windows of 16 frames of 384 pixels."""
    clips = SegmentWindows(window_len=16, frame_interval=4, num_segments=2)
    recipe = attentive_probe(Build(vjepa21_large, segments=2), clips, 384)
    reported = Reported(top1=76.5, source="arXiv:2603.14482, section 3.10")
    return replace(recipe, starts_from="V-JEPA 2.1 ViT-L", reported=reported)
