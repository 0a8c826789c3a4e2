"""SlowOnly: temporal convolutions in the last two stages alone."""

from mmaction_lite.models.convolution import Conv3d
from mmaction_lite.models.slowonly import slowonly_r50, slowonly_r101


def test_only_stages_3_and_4_have_temporal_convolutions():
    for model, counts in ((slowonly_r50(width=8), (0, 0, 6, 3)), (slowonly_r101(width=8), (0, 0, 23, 3))):
        for stage, count in enumerate(counts, 1):
            convolutions = model.get_submodule(f"backbone.layer{stage}").modules()
            temporal = [m for m in convolutions if isinstance(m, Conv3d) and m.kernel_size[0] > 1]
            assert len(temporal) == count
            assert {conv.kernel_size for conv in temporal} <= {(3, 1, 1)}
        assert model.get_parameter("backbone.conv1.weight").shape[2:] == (1, 7, 7)
