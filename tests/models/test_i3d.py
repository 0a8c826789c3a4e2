"""I3D in the two published forms."""

import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.models.i3d import i3d_r50, i3d_r50_heavy
from mmaction_lite.models.resnet import Block


@pytest.mark.parametrize(("builder", "frames"), [(i3d_r50, 4), (i3d_r50_heavy, 16)])
def test_strides_in_time(builder, frames):
    """MMAction2's form halves the frames in stem, pooling and after stage 1, PySlowFast's only there."""
    model = builder(num_classes=2, width=8).eval()
    with torch.no_grad():
        assert len(model.backbone(torch.zeros(32, 3, 32, 32), 1)) == frames


def test_both_have_temporal_convolutions_in_the_same_blocks():
    pattern = [[3, 3, 3], [3, 1, 3, 1], [3, 1, 3, 1, 3, 1], [1, 3, 1]]
    for model in (i3d_r50(width=8), i3d_r50_heavy(width=8)):
        for stage, kernels in enumerate(pattern, 1):
            children = model.get_submodule(f"backbone.layer{stage}").children()
            blocks = [block for block in children if isinstance(block, Block)]
            assert [block.get_parameter("conv1.weight").shape[2] for block in blocks] == kernels


def test_only_pyslowfasts_blocks_start_as_the_identity():
    for model, starts in ((i3d_r50(width=8), False), (i3d_r50_heavy(width=8), True)):
        blocks = [module for module in model.modules() if isinstance(module, Block)]
        assert all(not block.last_norm.weight.any() for block in blocks) == starts  # pyright: ignore


@pytest.mark.parametrize("builder", [i3d_r50, i3d_r50_heavy])
def test_clips_that_are_pooled_to_no_frame_are_refused(builder):
    model = builder(num_classes=3, width=4).eval()
    logits = {}
    for frames in (1, 2, 4, 8):
        try:
            logits[frames] = model(torch.zeros(1, 3, frames, 32, 32))
        except UserError as error:
            assert f"a clip of {frames} frames to none" in str(error)  # noqa: PT017
    assert logits
    assert all(found.isfinite().all() for found in logits.values())
    assert len(logits) < 4
