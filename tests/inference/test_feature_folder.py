"""Files in a folder: names, resuming, stale and foreign files, interruption, full disk."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.sources.source import open_sample
from mmaction_lite.errors import UserError
from mmaction_lite.files import FolderLock
from mmaction_lite.inference import feature_folder
from mmaction_lite.inference.feature_files import read_features
from mmaction_lite.inference.feature_folder import file_names, write_features
from mmaction_lite.inference.features import Extractor, FeatureSettings, extract_features
from mmaction_lite.weights.card import ModelCard

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(recipe):
    torch.manual_seed(0)
    card = ModelCard.of(recipe, ("down", "up"))
    model = card.build().eval()
    model.card = card  # pyright: ignore[reportArgumentType]
    return model


@pytest.fixture
def extractor(model):
    return Extractor(model, FeatureSettings())


@pytest.fixture
def reading(extractor, tiny):
    samples = read_split(tiny, "val")
    names = [samples.name(i) for i in range(len(samples))]
    return extractor.reading(names, partial(open_sample, samples))


def test_files_are_named_after_the_videos():
    assert file_names(["a/x.mp4", "a/b/y.mp4"], "npz") == ["x.mp4.npz", "b/y.mp4.npz"]
    assert file_names(["/data/x.mp4"], "npy") == ["x.mp4.npy"]
    assert file_names(["/d/v/x.mp4", "/d/v/y.mp4"], "npz", Path("/d")) == ["v/x.mp4.npz", "v/y.mp4.npz"]
    assert file_names(["/e/v/x.mp4"], "npz", Path("/d")) == ["x.mp4.npz"]
    assert file_names(["s3://b/x.mp4", "s3://b/c/x.mp4"], "npz") == ["x.mp4.npz", "c/x.mp4.npz"]
    assert file_names(["v/x.mp4#t=1,2", "v/x.mp4#t=2,3"], "npz") == ["x.mp4#t=1,2.npz", "x.mp4#t=2,3.npz"]
    # Different videos never share a file, and a video that is listed twice has one.
    found = file_names(["f/l_*.jpg", "f/l_?.jpg", "f/l_*.jpg"], "npz")
    assert found == ["l__.jpg.npz", "l__.jpg~2.npz", "l__.jpg.npz"]


def test_finished_files_are_kept_and_others_are_written(model, extractor, reading, tiny, tmp_path):
    lines = []
    files, faults = write_features(extractor, reading, tmp_path, root=tiny / "val", report=lines.append)
    assert not faults
    assert [str(one.file.relative_to(tmp_path)) for one in files][::5] == ["down/13.mp4.npz", "up/16.mp4.npz"]
    assert lines == ["6 videos, 0 finished earlier; 6 rows of 64 float32, 1.5 kB"]
    found = read_features(tmp_path)
    expected = extract_features(model, [tiny / "val" / "up" / "14.mp4"])[0]
    row = found.videos.index(str(tiny / "val" / "up" / "14.mp4"))
    np.testing.assert_allclose(found.values[row], expected.values[0], rtol=1e-4, atol=1e-5)

    kept = tmp_path / "up" / "12.mp4.npz"
    before = kept.stat().st_mtime_ns
    (tmp_path / "up" / "14.mp4.npz").unlink()
    files, _ = write_features(extractor, reading, tmp_path, root=tiny / "val", report=lines.append)
    assert lines[1].startswith("1 videos, 5 finished earlier; 1 rows")
    assert [one.num_rows for one in files] == [None, None, None, None, 1, None]
    assert kept.stat().st_mtime_ns == before

    other = Extractor(model, FeatureSettings(half=True))
    with pytest.raises(UserError, match=r"13\.mp4\.npz: holds other features \(dtype float32, not float16\)"):
        write_features(other, reading, tmp_path, root=tiny / "val")
    kept.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"12\.mp4\.npz: cannot be read"):
        write_features(extractor, reading, tmp_path, root=tiny / "val")
    assert kept.read_bytes() == b"mine"


def test_an_interruption_keeps_finished_files(extractor, reading, tmp_path, monkeypatch):
    save, number = feature_folder.save_features, 0

    def interrupted(path, features):
        nonlocal number
        number += 1
        if number == 4:
            raise KeyboardInterrupt
        save(path, features)

    monkeypatch.setattr(feature_folder, "save_features", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_features(extractor, reading, tmp_path)
    assert len(read_features(tmp_path)) == 3
    assert not (tmp_path / ".lock").exists()
    monkeypatch.undo()
    files, _ = write_features(extractor, reading, tmp_path)
    assert [one.num_rows for one in files] == [None] * 3 + [1] * 3


def test_a_disk_that_is_too_small_is_reported_before_the_work(extractor, reading, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"has 1\.0 kB free, and the features need 1\.5 kB \(6 rows of 64"):
        write_features(extractor, reading, tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_a_folder_that_another_process_writes_to_is_refused(extractor, reading, tmp_path, monkeypatch):
    def taken(self):
        raise UserError(f"{self.folder}: process 1 writes to this folder")

    monkeypatch.setattr(FolderLock, "acquire", taken)
    with pytest.raises(UserError, match="process 1 writes to this folder"):
        write_features(extractor, reading, tmp_path)
