"""Predictions equal the scores of an evaluation, and leave the process as it was."""

import numpy as np
import pytest
import torch

from mmaction_lite import load, predict
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.inference.predict import Prediction, load_for_inference, predictions
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
