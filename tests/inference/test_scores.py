"""Scores under a protocol: PySlowFast's windows, precision of the sums, and files of scores."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmaction_lite import get_recipe, list_recipes, load, predict
from mmaction_lite.cli import main
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.workers import IN_PROCESS
from mmaction_lite.data.sources.source import open_sample
from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError
from mmaction_lite.export.int8 import quantize_model
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.inference.scores import compute_scores
from mmaction_lite.models.recognizer import Recognizer, fold_time
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights.card import card_of
from mmaction_lite.weights.conversion import convert_file
from mmaction_lite.weights.converters import pyslowfast
from tests.weights.test_converters import shapes

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = [
    ("pyslowfast__SLOW_4x16_R50", "slowonly_r50_4x16x1_196e_kinetics400_rgb"),
    # The same weights with a recipe that sets no window.
    pytest.param(
        *("pyslowfast__SLOW_4x16_R50", "slowonly_r50_4x16x1_256e_kinetics400_rgb"), marks=pytest.mark.slow
    ),
    pytest.param(
        *("pyslowfast__SLOWFAST_4x16_R50", "slowfast_r50_4x16x1_196e_kinetics400_rgb"),
        marks=pytest.mark.slow,
    ),
]


def thin(name: str):
    """The recipe with an eighth of the channels, tested with one view."""
    recipe = get_recipe(name)
    one = replace(
        recipe.test, clips=replace(recipe.test.clips, num_clips=1), crop=CenterCrop(size=(256, 256))
    )
    model = Build(recipe.model.builder, **recipe.model.arguments, width=8)
    return replace(recipe, model=model, test=one)


def converted(public: str, name: str, folder: Path) -> Path:
    """A weights file converted from a checkpoint with PySlowFast's names, filled at random."""
    torch.manual_seed(0)
    recipe = thin(name)
    model = recipe.model(num_classes=2)
    assert isinstance(model, Recognizer)
    nn.init.normal_(model.fc.weight, std=1.0)
    state = model.state_dict()
    names = pyslowfast.rename(shapes(public))
    torch.save(
        {"model_state": {theirs: state[ours] for theirs, ours in names.items() if ours}}, folder / "x.pyth"
    )
    (folder / "w.safetensors").unlink(missing_ok=True)
    convert_file(folder / "x.pyth", recipe, folder / "w.safetensors", ("down", "up"))
    return folder / "w.safetensors"


@torch.no_grad()
def by_hand(model, samples) -> np.ndarray:
    """Classify each 7x7 window of the 8x8 features and average the probabilities."""
    protocol = card_of(model).test
    rows = []
    for number in range(len(samples)):
        with open_sample(samples, number) as source:
            inputs = protocol.prepare(torch.from_numpy(protocol.read(source)))
        features = model.backbone(fold_time(inputs), 1).unflatten(0, (1, -1)).mean(1)[0]
        assert features.shape[1:] == (8, 8)
        windows = [features[:, i : i + 7, j : j + 7].mean((1, 2)) for i in range(2) for j in range(2)]
        rows.append(torch.stack([model.fc(window).softmax(0) for window in windows]).mean(0))
    return torch.stack(rows).numpy()


def log_odds(scores: np.ndarray) -> np.ndarray:
    """Of the second of two classes, (N,): differences also show where probabilities are near 1."""
    return np.log(scores[:, 1] / scores[:, 0])


@pytest.mark.parametrize(("public", "name"), CASES)
def test_pyslowfast_weights_are_tested_by_windows(public, name, tiny, tmp_path, monkeypatch, capsys):
    path = converted(public, name, tmp_path)
    model = load(path)
    card = card_of(model)
    assert card.test.window == 7
    samples = read_split(tiny, "val")
    expected = by_hand(model, samples)
    found = evaluate(model, samples, card.test).scores
    np.testing.assert_allclose(log_odds(found), log_odds(expected), atol=1e-3)
    whole = evaluate(model, samples, replace(card.test, window=None)).scores
    assert np.abs(log_odds(whole) - log_odds(expected)).max() > 0.02

    found = predict(path, samples.path(0))
    assert found.scores[found.labels.index("up")] == pytest.approx(expected[0, 1], abs=1e-4)
    arguments = ["test", path, "--data", tiny, "--dump", tmp_path / "test.npz", "--workers", 0]
    monkeypatch.setattr(sys, "argv", ["mmaction-lite", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert "every 7x7 window of the features, probabilities averaged" in capsys.readouterr().out
    with np.load(tmp_path / "test.npz", allow_pickle=False) as saved:
        np.testing.assert_allclose(saved["scores"], expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("public", "name"), [CASES[0], CASES[2]])
def test_windows_in_int8(public, name, tiny, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = load(converted(public, name, tmp_path))
    samples, protocol = read_split(tiny, "val"), card_of(model).test
    whole = replace(protocol, window=None)
    expected = by_hand(model, samples)
    small = [quantize_model(model, each, samples, IN_PROCESS) for each in (protocol, whole)]
    found, without = (evaluate(each, samples, each.card.test).scores for each in small)
    errors = [np.abs(log_odds(scores) - log_odds(expected)).mean() for scores in (found, without)]
    assert errors[0] < errors[1]


def test_only_recipes_of_pyslowfast_with_larger_test_crops_have_a_window():
    found = set()
    for name, recipe in list_recipes().items():
        source = recipe.reported.source if recipe.reported else ""
        size = min(recipe.train.crop.size)
        is_pyslowfast = source.startswith("PySlowFast") or name.startswith("x3d_")
        has_window = is_pyslowfast and min(recipe.test.crop.size) > size
        window = -(-size // 32) if has_window else None  # side of the feature map in the training
        assert recipe.test_protocol.window == recipe.val_protocol.window == window, name
        found.add(window)
    assert found == {None, 5, 7, 10}


def test_windows_that_a_model_cannot_classify_are_one_line(recipe):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(x.mean((2, 3, 4)))

    views = TestViews(clips=SegmentFrames(num_segments=4), crop=CenterCrop(size=(64, 64)))
    protocol = replace(recipe.test_protocol, views=views, window=7)
    pixels = torch.zeros(1, 4, 64, 64, 3, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"forward method of Own has no argument `window`\. Use a recipe"):
        compute_scores(Own(), [pixels], protocol)
    with pytest.raises(UserError, match=r"^window is 7; expected at most the feature map, 2x2\. Use larger"):
        compute_scores(recipe.model(num_classes=2).eval(), [pixels], protocol)
