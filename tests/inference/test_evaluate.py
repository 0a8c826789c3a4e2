from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.views.crops import CenterCrop, TenCrop
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError
from mmaction_lite.inference import scores as module
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.tasks.metrics import average_precision
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.single_label import SingleLabel


class Brightness(nn.Module):
    """Class 1 is as likely as the clip's last frame is brighter than its first."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.largest_batch = 0

    def forward(self, x):
        self.largest_batch = max(self.largest_batch, len(x))
        light = x.mean((1, 3, 4))
        difference = self.scale * (light[:, -1] - light[:, 0])
        return torch.stack([-difference, difference], 1)


@pytest.fixture
def views():
    return TestViews(clips=DenseClips(clip_len=4, num_clips=3), short_side=24, crop=TenCrop(size=(16, 16)))


def test_metrics_equal_their_definitions():
    scores = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]], np.float32)
    labels = np.array([0, 1, 2, 0])
    found = SingleLabel().metrics(scores, labels)
    assert found["top1"] == 0.5  # the tie of the last row is no hit
    assert found["top5"] == 1.0
    assert found["mean_class"] == pytest.approx((0.5 + 0 + 1) / 3)
    wide = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (8, 1))
    assert SingleLabel().metrics(wide, np.arange(8))["top5"] == 5 / 8


def test_average_precision_by_hand():
    """Class 0: its videos are first and third: (1/1 + 2/3) / 2. Class 1: tied with another: 1/2."""
    scores = np.array([[0.9, 0.5, 0.1], [0.8, 0.5, 0.2], [0.7, 0.1, 0.3], [np.nan] * 3], np.float32)
    labels = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], bool)
    np.testing.assert_allclose(average_precision(scores, labels), [5 / 6, 1 / 2, np.nan])
    found = MultiLabel().metrics(scores, labels)
    assert found == {"mean_average_precision": pytest.approx(2 / 3), "top1": 2 / 4}
    labels[3, 0] = True  # an unreadable video is found by no class
    np.testing.assert_allclose(average_precision(scores, labels)[0], (1 + 2 / 3) / 3)


def test_unreadable_videos_count_as_wrong():
    scores = np.array([[0.9, 0.1], [np.nan, np.nan]], np.float32)
    assert SingleLabel().metrics(scores, np.array([0, 0])) == {"top1": 0.5, "top5": 0.5, "mean_class": 0.5}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_video_once_with_all_its_views(tiny, views, num_workers, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 7 * 4 * 4 * 16 * 16 * 3)  # seven views at a time
    samples = read_split(tiny, "val")
    model = Brightness()
    result = evaluate(model, samples, Protocol(views=views), workers=WorkerSettings(num_workers=num_workers))
    assert model.largest_batch == 7
    assert result.metrics["top1"] == 1.0
    assert "3 clips × 10 crops" in result.protocol_line
    assert f"6 videos of {samples.source}, 0 unreadable" in result.protocol_line
    monkeypatch.setattr(module, "CHUNK_BYTES", 1 << 30)
    whole = evaluate(model, samples, Protocol(views=views))
    fast = replace(whole, precision="bfloat16", compile="default")
    assert "; bfloat16; compiled (default); 6 videos" in fast.protocol_line
    np.testing.assert_allclose(result.scores, whole.scores, rtol=1e-5)


def test_a_broken_video_is_named_and_never_dropped(tiny, views, tmp_path):
    (tmp_path / "val" / "up").mkdir(parents=True)
    (tmp_path / "val" / "up" / "broken.mp4").write_bytes(b"no")
    (tmp_path / "val" / "up" / "good.mp4").write_bytes((tiny / "val" / "up" / "12.mp4").read_bytes())
    samples = read_split(tmp_path, "val", ("down", "up"))
    one = replace(views, crop=CenterCrop(size=(16, 16)))
    result = evaluate(Brightness(), samples, Protocol(views=one))
    assert np.isnan(result.scores[0]).all()
    assert result.metrics["top1"] == 0.5
    assert f"2 videos of {samples.source}, 1 unreadable" in result.protocol_line
    assert "broken.mp4" in result.faults[0].reason
    result.save(tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as saved:
        assert saved["class_names"].tolist() == ["down", "up"]
        assert saved["paths"][1].endswith("good.mp4")
        np.testing.assert_array_equal(saved["scores"], result.scores)
    (tmp_path / "val" / "up" / "good.mp4").unlink()
    with pytest.raises(UserError, match=r"none of 1 videos can be read; .*broken\.mp4"):
        evaluate(Brightness(), read_split(tmp_path, "val", ("down", "up")), Protocol(views=one))
