"""Shards of features: written whole or not at all, compared by checksums, found by the state of the file."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError
from mmaction_lite.training.feature_cache import ClipFeatures, FeatureCache, FeatureKey, clip_checksum
from tests.conftest import brightening, write_video

KEY = FeatureKey(
    weights="w", encoder="e", layer="l", views="v", rows=2, shape=(3, 4), dtype="float16", seed=None
)


def features(number: int) -> ClipFeatures:
    values = np.random.default_rng(number).normal(size=(2, 3, 4)).astype(np.float16)
    return ClipFeatures(values, np.array([[False, False], [number % 2 == 0, True]]))


def filled(folder: Path, numbers: range, lines: list[str] | None = None) -> FeatureCache:
    cache = FeatureCache(folder, KEY, (lines if lines is not None else []).append)
    cache.folder.mkdir(parents=True, exist_ok=True)
    cache.write([(f"clip{i}", f"{i}.mp4") for i in numbers], [features(i) for i in numbers])
    cache.open()
    return cache


def test_features_come_back_as_they_were_written(tmp_path):
    filled(tmp_path, range(3))
    cache = filled(tmp_path, range(3, 5))
    again = FeatureCache(tmp_path, KEY, print)
    again.open()
    for each in (cache, again):
        for i in range(5):
            found = each[f"clip{i}"]
            assert np.array_equal(found.values, features(i).values)
            assert np.array_equal(found.altered, features(i).altered)
        assert "clip5" not in each
        assert each.names["clip4"] == "4.mp4"
    assert isinstance(again["clip0"].values.base, np.memmap)


def test_every_part_of_the_key_chooses_another_folder():
    others = ("other", "e2", "l2", "v2", 3, (3, 5), "float32", 1)
    keys = [KEY, *(KEY._replace(**{name: value}) for name, value in zip(KEY._fields, others, strict=True))]
    assert len({key.checksum() for key in keys}) == len(keys)
    assert KEY.clip_bytes == 2 * 3 * 4 * 2


@pytest.mark.parametrize("where", ["header", "values", "end", "empty", "length"])
def test_a_damaged_shard_is_reported_and_left_out(tmp_path, where):
    (path,) = filled(tmp_path, range(3)).folder.glob("*.features")
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    if where == "values":
        data[8 + size + 5] ^= 1
    elif where == "header":
        data[12] = 0
    elif where == "length":
        data[7] = 255
    path.write_bytes({"end": data[:-1], "empty": b""}.get(where, data))
    lines: list[str] = []
    cache = FeatureCache(tmp_path, KEY, lines.append)
    cache.open()
    assert "clip0" not in cache
    assert len(lines) == 1
    assert lines[0].startswith(f"{path}: is damaged (")
    assert lines[0].endswith("so its clips are computed again; delete the file")


def test_a_damaged_shard_is_replaced_by_the_same_clips(tmp_path):
    (path,) = filled(tmp_path, range(3)).folder.glob("*.features")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    cache = FeatureCache(tmp_path, KEY, lambda _: None)
    cache.open()
    filled(tmp_path, range(3))  # another process, or this one
    cache.open()
    assert "clip0" in cache
    np.testing.assert_array_equal(cache["clip2"].values, features(2).values)


def test_a_shard_of_another_cache_is_left_out(tmp_path):
    """Somebody copies a folder over another one."""
    cache = filled(tmp_path, range(3))
    lines: list[str] = []
    other = FeatureCache(tmp_path, KEY._replace(weights="other"), lines.append)
    shutil.copytree(cache.folder, other.folder)
    other.open()
    assert "clip0" not in other
    assert "features of another encoder or of other views" in lines[0]


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    cache = filled(tmp_path, range(1))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"could not be written .*No space left"):
        cache.write([("x", "x")], [features(9)])
    assert len(list(cache.folder.iterdir())) == 1


# A process forks writers and kills them; importing the package for each of them would take minutes.
DRILL = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from tests.training.test_feature_cache import KEY, FeatureCache, features

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(0)
stored = [features(i) for i in range(7)]

def opened(report=print):
    cache = FeatureCache(folder, KEY, report)
    cache.open()
    return cache

def write():
    cache = opened()
    cache.folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, 1_000_000, 40):
        names = [f"clip{i}" for i in range(first, first + 40)]
        if any(name not in cache for name in names):
            cache.write([(n, n) for n in names], [stored[i % 7] for i in range(first, first + 40)])

known = partial = 0
for _ in range(kills):
    child = os.fork()
    if child == 0:
        write()
        os._exit(1)
    time.sleep(rng.uniform(0.01, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lines = []
    cache = opened(lines.append)
    assert not lines, lines
    found = sorted(int(name.removeprefix("clip")) for name in cache.names)
    assert len(found) >= known and len(found) % 40 == 0, found
    for i in found:
        assert np.array_equal(cache[f"clip{i}"].values, stored[i % 7].values)
    if cache.folder.is_dir():
        partial += sum(path.name.startswith(".") for path in cache.folder.iterdir())
        cache.remove_partial()
        assert not any(path.name.startswith(".") for path in cache.folder.iterdir())
    known = len(found)
assert known > 0
print(f"{kills} kills, {known} clips, {partial} partial files")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_while_shards_are_written_leave_nothing_wrong(tmp_path):
    kills = os.environ.get("MMACTION_LITE_KILLS", "10")
    done = subprocess.run(
        [sys.executable, "-c", DRILL, str(tmp_path), kills], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)


def test_a_clip_is_found_by_the_state_of_its_file(tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / "data" / "val" / "up" / f"{name}.mp4", brightening(0))
    frames = tmp_path / "data" / "val" / "down" / "frames"
    frames.mkdir(parents=True)
    from PIL import Image

    for i in range(3):
        Image.fromarray(brightening(0)[i]).save(frames / f"{i:03d}.jpg")

    def sums() -> list[str]:
        samples = read_split(tmp_path / "data", "val", ("down", "up"))
        return [clip_checksum(samples, i) for i in range(len(samples))]

    before = sums()
    assert len(set(before)) == 3
    assert sums() == before
    os.utime(tmp_path / "data" / "val" / "up" / "a.mp4", ns=(1, 1))
    Image.fromarray(brightening(2)[0]).save(frames / "001.jpg", quality=30)
    assert sum(one != other for one, other in zip(sums(), before, strict=True)) == 2
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = read_split(tmp_path / "moved", "val", ("down", "up"))
    assert [clip_checksum(moved, i) for i in range(3)][2] == before[2]
    parts = replace(moved, segments=np.array([[0, 1.0], [0, 1], [0, 2]]))
    assert clip_checksum(parts, 2) != before[2]
