"""R3D and MC3: full convolutions over space and time, in all stages or in the first."""

import pytest

from mmaction_lite.models.convolution import Conv3d
from mmaction_lite.models.r3d import mc3_r18, r3d_r18


@pytest.mark.parametrize(("builder", "stages"), [(r3d_r18, (3, 3, 3, 3)), (mc3_r18, (3, 1, 1, 1))])
def test_kernels_in_frames_by_stage(builder, stages):
    model = builder(width=8)
    assert model.get_parameter("backbone.conv1.weight").shape[2:] == (3, 7, 7)
    for stage, frames in enumerate(stages, 1):
        modules = model.get_submodule(f"backbone.layer{stage}").modules()
        kernels = {conv.kernel_size for conv in modules if isinstance(conv, Conv3d)}
        assert kernels - {(1, 1, 1)} == {(frames, 3, 3)}  # shortcuts are 1x1x1
