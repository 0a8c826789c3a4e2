"""Features that are computed once: the values of the network, and everything that makes them stale."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.sources.source import open_sample
from mmaction_lite.errors import Interrupted, UserError
from mmaction_lite.models import probe_linear
from mmaction_lite.training import feature_extraction
from mmaction_lite.training.feature_cache import FeatureCache
from mmaction_lite.training.feature_extraction import ClipViews, FeatureExtraction
from tests.conftest import brightening, small_recipe, write_video
from tests.exports import with_statistics
from tests.probes import extraction, fixed_views, store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return with_statistics(probe_linear(num_classes=2, encoder="tsm_r10", width=8, pool="none"))


@pytest.fixture
def val(tiny):
    return read_split(tiny, "val", ("down", "up"))


def test_stored_features_are_those_of_the_network(network, val, tmp_path):
    lines: list[str] = []
    exact = store(extraction(network, "float32", lines), val, tmp_path)
    half = store(extraction(network, "float16"), val, tmp_path)
    pixels = []
    for i in range(len(val)):
        with open_sample(val, i) as source:
            pixels.append(torch.from_numpy(small_recipe().val.read(source)))
    with torch.no_grad():
        inputs = torch.cat([small_recipe().val_protocol.prepare(clip) for clip in pixels])
        expected = network.features(inputs)
    for i in range(len(val)):
        assert np.array_equal(exact.of(i).values, expected[i, None].numpy())
        assert half.of(i).values.dtype == np.float16
        np.testing.assert_allclose(half.of(i).values, exact.of(i).values, rtol=1e-3, atol=1e-4)
        assert not exact.of(i).altered.any()
    assert lines == [
        f"features of {val.source}: 0 stored in {exact.cache.folder}, 6 new; to write: 6 clips of 1 × 4 × 64 "
        "float32, 6.1 kB"
    ]
    lines.clear()
    store(extraction(network, "float32", lines), val, tmp_path)
    assert lines == [f"features of {val.source}: 6 stored in {exact.cache.folder}, 0 new"]


def test_everything_that_features_depend_on_is_in_the_key(network, val):
    views = fixed_views()
    keys = [extraction(network).key(views), extraction(network, "float32").key(views)]
    for change in (
        {"precision": "bfloat16"},
        {"encoder": "other"},
        {"normalize": replace(NORMALIZE, std=(1.0,) * 3)},
    ):
        changed = extraction(network)
        for name, value in change.items():
            setattr(changed, name, value)
        keys.append(changed.key(views))
    wider = replace(small_recipe().val, short_side=25)
    keys.append(extraction(network).key(ClipViews(views=wider)))
    bicubic = replace(small_recipe().val, interpolation="bicubic")
    keys.append(extraction(network).key(ClipViews(views=bicubic)))
    for seed in (0, 1):
        keys.append(extraction(network).key(ClipViews(views=small_recipe().train, passes=2, seed=seed)))
    keys.append(extraction(network).key(ClipViews(views=small_recipe().train, passes=3)))
    network.pool = "space"
    network.frame_code = True
    keys.append(extraction(network).key(views))
    with torch.no_grad():
        next(network.encoder.parameters()).mul_(2)
    keys.append(extraction(network).key(views))
    assert len({key.checksum() for key in keys}) == len(keys)


NORMALIZE = small_recipe().normalize


def test_random_passes_depend_on_the_clip_and_not_on_its_position(network, val, tmp_path):
    views = ClipViews(views=small_recipe().train, passes=3, seed=7)
    stored = store(extraction(network), val, tmp_path, views)
    assert stored.of(0).values.shape == (3, 4, 64)
    assert not np.array_equal(stored.of(0).values[0], stored.of(0).values[1])
    altered = np.concatenate([stored.of(i).altered for i in range(6)])
    assert 0 < altered[:, 0].sum() < 18
    from mmaction_lite.data.annotations.samples import PackedStrings

    turned = replace(
        val, paths=PackedStrings([val.paths[i] for i in range(5, -1, -1)]), labels=val.labels[::-1]
    )
    again = store(extraction(network), turned, tmp_path / "other", views)
    for i in range(6):
        np.testing.assert_allclose(again.of(5 - i).values, stored.of(i).values, rtol=1e-2, atol=1e-3)
        assert np.array_equal(again.of(5 - i).altered, stored.of(i).altered)


def test_a_changed_file_is_read_again_and_a_broken_one_is_one_line(network, tmp_path):
    data = tmp_path / "data"
    for i in range(4):
        write_video(data / "val" / ("up" if i % 2 == 0 else "down") / f"{i}.mp4", brightening(i))
    (data / "val" / "up" / "broken.mp4").write_bytes(b"nothing")
    samples = read_split(data, "val")
    broken = [i for i in range(5) if "broken" in samples.name(i)]
    lines: list[str] = []
    stored = store(extraction(network, lines=lines), samples, tmp_path / "cache")
    assert list(stored.faults) == broken
    assert len(lines) == 2
    assert lines[1].startswith(f"{data / 'val' / 'up' / 'broken.mp4'}: ")
    changed = next(i for i in range(5) if samples.name(i).endswith("2.mp4"))
    before = {i: np.array(stored.of(i).values) for i in range(5) if i not in broken}
    write_video(data / "val" / "up" / "2.mp4", brightening(9))
    lines.clear()
    stored = store(extraction(network, lines=lines), samples, tmp_path / "cache")
    assert "3 stored in" in lines[0]
    assert "1 of changed files, 1 new; to write: 2 clips" in lines[0]
    for i, values in before.items():
        assert np.array_equal(stored.of(i).values, values) == (i != changed)
    (data / "val" / "up" / "0.mp4").write_bytes(b"")
    for i in (1, 2, 3):
        (data / "val" / ("up" if i % 2 == 0 else "down") / f"{i}.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match="none of 5 clips can be read; the first: "):
        store(extraction(network), samples, tmp_path / "new")


def test_a_clip_that_is_listed_twice_is_computed_once(network, val, tmp_path, monkeypatch):
    from mmaction_lite.data.annotations.samples import PackedStrings

    paths = [val.paths[i] for i in (0, 1, 0)]
    twice = replace(val, paths=PackedStrings(paths), labels=val.labels[[0, 1, 0]])
    stored = store(extraction(network), twice, tmp_path)
    assert len(stored.cache.names) == 2
    assert np.array_equal(stored.of(0).values, stored.of(2).values)


def test_values_that_do_not_fit_into_float16_are_reported(network, val, tmp_path):
    with torch.no_grad():
        for module in network.encoder.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.bias.add_(1e5)
    with pytest.raises(UserError, match=r"features are not finite; --set probe\.storage=float32"):
        store(extraction(network), val, tmp_path)
    assert not store(extraction(network, "float32"), val, tmp_path).faults


def test_a_disk_that_is_too_small_is_refused_before_the_work(network, val, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        UserError, match=r"the disk has 1\.0 kB free, and the features need 3\.1 kB \(6 clips of"
    ):
        store(extraction(network), val, tmp_path)


def test_ctrl_c_keeps_what_is_computed(network, val, tmp_path, monkeypatch):
    def stop_after_three(items, total, title):
        for i, item in enumerate(items):
            if i == 3:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(feature_extraction, "clips_at_once", lambda shape: 1)
    computed = extraction(network)
    computed.track = stop_after_three
    with pytest.raises(
        Interrupted, match="the features that were computed are kept, and the same command continues"
    ):
        store(computed, val, tmp_path)
    assert len(list(computed_names(computed, tmp_path))) == 3
    lines: list[str] = []
    store(extraction(network, lines=lines), val, tmp_path)
    assert ": 3 stored in " in lines[0]


def computed_names(computed: FeatureExtraction, folder):
    cache = FeatureCache(folder, computed.key(fixed_views()), print)
    cache.open()
    return cache.names


@pytest.mark.slow
def test_workers_read_the_same_clips(network, val, tmp_path):
    one = store(extraction(network), val, tmp_path / "one")
    computed = extraction(network)
    computed.workers = WorkerSettings(num_workers=2)
    two = store(computed, val, tmp_path / "two")
    for i in range(6):
        assert np.array_equal(one.of(i).values, two.of(i).values)
