"""Generated scenes cost as much to decode as clips of Kinetics."""

import statistics
import time
from pathlib import Path

import av
import pytest

from mmaction_lite.data.generated.scenes import write_scene

REAL = Path(__file__).parents[3] / "shared" / "videos" / "mma2_test.mp4"


def decoded(path):
    """Picture types of a file, and processor seconds to decode it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        start = time.process_time()
        types = [int(frame.pict_type) for frame in container.decode(stream)]
        return types, time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("keyframe_every", [None, 10])
def test_generated_scenes_are_like_those_of_kinetics(tmp_path, keyframe_every):
    write_scene(tmp_path / "a.mp4", 1, keyframe_every)
    types, _ = decoded(tmp_path / "a.mp4")
    assert len(types) == 300
    size = (tmp_path / "a.mp4").stat().st_size
    assert 0.5e6 <= size <= 1.4e6
    if keyframe_every is None:
        assert 0.45 <= types.count(3) / 300 <= 0.75
        assert types.count(1) <= 5
    else:
        assert [i for i, kind in enumerate(types) if kind == 1][:3] == [0, 10, 20]
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate or 0)) == (340, 256, 30)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the real clip is not beside the repository")
def test_generated_scenes_take_as_long_to_decode_as_a_real_clip(tmp_path):
    """Per frame; the real one is 340x256 too, at its published keyframe distance."""
    write_scene(tmp_path / "a.mp4", 1)
    ratios = []
    for _ in range(7):
        (types, ours), (others, theirs) = decoded(tmp_path / "a.mp4"), decoded(REAL)
        ratios.append((ours / len(types)) / (theirs / len(others)))
    assert 0.8 <= statistics.median(ratios) <= 1.2
