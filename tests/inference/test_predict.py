"""Predictions equal the scores of an evaluation, and leave the process as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmaction_lite import load, predict
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.inference import batches
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.inference.predict import Prediction, PredictionSettings, load_for_inference, predictions
from mmaction_lite.models.fast.inference import is_optimized
from mmaction_lite.weights.card import ModelCard, card_of, save_weights


@pytest.fixture
def weights(recipe, tmp_path):
    card = ModelCard.of(recipe, ("down", "up"))
    torch.manual_seed(0)
    save_weights(tmp_path / "weights.safetensors", card.build().state_dict(), card)
    return tmp_path / "weights.safetensors"


def test_predict_takes_paths_arrays_and_networks(weights, tiny):
    path = tiny / "val" / "up" / "12.mp4"
    result = predict(weights, path)
    assert isinstance(result, Prediction)
    assert set(result.labels) == {"down", "up"}
    assert result.scores.sum() == pytest.approx(1)
    assert (np.diff(result.scores) <= 0).all()
    assert str(result.protocol).startswith("1x1x4 frames: 1 clip × 1 crop")
    with open_source(path) as source:
        pixels = source.frames(range(len(source)))
    several = predict(load(weights), [str(path), pixels])
    for other in several:
        assert other.labels == result.labels
        np.testing.assert_array_equal(other.scores, result.scores)
    with pytest.raises(UserError, match=r"pixels are float32 \(16, 48, 64, 3\); expected uint8"):
        predict(weights, pixels.astype(np.float32))
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        predict(weights, "gone.mp4")


def test_predictions_are_the_scores_of_an_evaluation(weights, tiny):
    model = load_for_inference(weights)
    assert is_optimized(model)
    card, samples = card_of(model), read_split(tiny, "val", ("down", "up"))
    scores = evaluate(model, samples, card.test).scores
    for number, found in enumerate(predictions(model, [samples.path(i) for i in range(len(samples))])):
        assert found.protocol == card.test
        order = [card.classes.index(label) for label in found.labels]
        np.testing.assert_allclose(found.scores, scores[number, order], rtol=1e-5)


def test_videos_of_one_batch_have_the_scores_of_single_videos(weights, tiny):
    model = load_for_inference(weights)
    paths = sorted((tiny / "val").rglob("*.mp4"))
    single = [predict(model, path) for path in paths]
    for batch_size in (None, 1, 4):
        several = predict(model, paths, batch_size=batch_size)
        assert [found.video for found in several] == list(map(str, paths))
        for one, other in zip(single, several, strict=True):
            assert one.labels == other.labels
            np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5)
            assert batch_size != 1 or np.array_equal(one.scores, other.scores)


def test_predict_takes_contents_tensors_folders_and_patterns(weights, tiny):
    model, path = load_for_inference(weights), tiny / "val" / "up" / "12.mp4"
    expected = predict(model, path)
    with path.open("rb") as file, open_source(path) as source:
        pixels = torch.from_numpy(source.frames(range(len(source))))
        for video in (file, path.read_bytes(), pixels, pixels.permute(0, 3, 1, 2)):
            np.testing.assert_array_equal(predict(model, video).scores, expected.scores)
        several = predict(model, (video for video in [file, pixels]))
    assert [found.video for found in several] == [str(path), "tensor 1"]
    for folder in (tiny / "val" / "up", f"{tiny}/val/up/*.mp4"):
        found: Any = predict(model, folder)
        assert [Path(result.video).name for result in found] == ["12.mp4", "14.mp4", "16.mp4"]
    assert predict(model, []) == []


def test_other_views_and_precisions_are_named(weights, tiny):
    model = load_for_inference(weights)
    protocol = card_of(model).test.with_views(None, "three")
    settings = PredictionSettings(protocol=protocol, precision="bfloat16")
    assert settings.arithmetic == "; bfloat16"
    (found,) = predictions(model, [tiny / "val" / "up" / "12.mp4"], settings)
    assert "1 clip × 3 crops (ThreeCrop" in str(found.protocol)
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        list(predictions(model, ["gone.mp4"], settings))


def test_a_list_of_paths_is_read_by_workers(weights, tiny, monkeypatch):
    """A generator of paths cannot be shared between workers, and was read in this process."""
    counts = []
    monkeypatch.setattr(batches, "worker_count", lambda paths, workers: counts.append(len(paths)) or 0)
    predict(weights, sorted((tiny / "val").rglob("*.mp4"))[:2], "cpu", workers=2)
    assert counts == [2]
