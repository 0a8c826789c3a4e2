"""What PySlowFast's trainings have in common; the published values are in `test_published.py`."""

from mmaction_lite.data.views.samplers import PySlowFastClips
from mmaction_lite.models import slowonly_r50
from mmaction_lite.recipes.pyslowfast import pyslowfast
from mmaction_lite.recipes.recipe import Build, Reported


def test_a_network_and_its_clips_become_a_recipe():
    clips = PySlowFastClips(clip_len=8, frame_interval=8)
    reported = Reported(top1=74.8, source="a test")
    recipe = pyslowfast(Build(slowonly_r50, dropout=0.5), clips, reported)
    assert recipe.name == "slowonly_r50_8x8x1_196e_kinetics400_rgb"
    assert (recipe.train.clips, recipe.reported) == (clips, reported)
    assert (recipe.val.num_views, recipe.test.num_views) == (1, 30)
    assert recipe.max_grad_norm is None
