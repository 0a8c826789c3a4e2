"""Temperatures: fitted to scores, applied, and stored in a copy of the weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmaction_lite import load
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError
from mmaction_lite.inference.calibrate import (
    apply_temperature,
    calibrated_file,
    check_store,
    fit_temperature,
    store_temperature,
)
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.score_files import read_scores
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.verb_noun import VerbNoun
from mmaction_lite.weights.card import ModelCard, card_of, save_weights
from mmaction_lite.weights.fingerprint import fingerprint_of_weights
from tests.tasks.test_fusion import table_of

pytestmark = pytest.mark.usefixtures("one_thread")


def overconfident(temperature: float, task, num_videos: int = 4000):
    """Scores whose labels are drawn from their probabilities at a temperature."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(num_videos, 6)) * 2)
    true = task.probabilities(logits).numpy()
    if isinstance(task, MultiLabel):
        labels = rng.random(true.shape) < true
    elif isinstance(task, VerbNoun):
        labels = np.stack([[rng.choice(3, p=p / p.sum()) for p in part] for part in np.split(true, 2, 1)], 1)
    else:
        labels = np.array([rng.choice(6, p=p / p.sum()) for p in true])
    scores = task.probabilities(logits * temperature).float().numpy()
    names = list("abcdef")
    return table_of("val.npz", 0, num_videos, labels=labels, scores=scores, task=task, class_names=names)


@pytest.mark.parametrize("task", [SingleLabel(), MultiLabel(), VerbNoun(num_verbs=3)])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_temperature_of_overconfident_scores_is_found(task, temperature):
    table = overconfident(temperature, task, 1500)
    table.scores[0] = np.nan
    found = fit_temperature(table)
    assert found.value == pytest.approx(temperature, rel=0.1)
    calibrated = apply_temperature(table, found, "val.npz")
    readable = slice(1, None)
    before, after = (
        -np.log(task.likelihoods(t.scores[readable], t.labels[readable])).mean() for t in (table, calibrated)
    )
    assert after < before
    assert calibrated.metrics.get("top1") == table.metrics.get("top1")
    assert np.isnan(calibrated.scores[0]).all()
    assert calibrated.protocol == f"protocol of val.npz; {found} fitted on val.npz"


def test_scores_without_a_minimum_are_one_line():
    labels = np.arange(40) % 4
    scores = np.eye(4, dtype=np.float32)[labels] * 0.6 + 0.1
    table = table_of("val.npz", labels=labels, scores=scores)
    with pytest.raises(UserError, match=r"^val\.npz: the log loss of the 40 readable videos has no minimum"):
        fit_temperature(table)
    with pytest.raises(UserError, match="no video is readable"):
        fit_temperature(replace(table, scores=np.full((40, 4), np.nan, np.float32)))


def test_a_test_with_stored_temperature_gives_the_calibrated_scores(recipe, tiny, tmp_path):
    card = ModelCard.of(recipe, ("down", "up"))
    torch.manual_seed(0)
    weights = tmp_path / "w.safetensors"
    save_weights(weights, card.build().state_dict(), card)
    model = load(weights)
    samples = read_split(tiny, "val")
    result = replace(evaluate(model, samples, card.test), weights=fingerprint_of_weights(model))
    result.save(tmp_path / "val.npz")
    table = read_scores(tmp_path / "val.npz")
    temperature = replace(fit_temperature(overconfident(2.0, SingleLabel(), 300)), value=1.7)
    out = calibrated_file(str(weights))
    assert out == tmp_path / "w_calibrated.safetensors"
    store_temperature(str(weights), out, temperature, table)
    store_temperature(str(weights), out, temperature, table)  # replaces its own file
    again = load(out)
    assert str(card_of(again).test).endswith(", temperature 1.7")
    found = evaluate(again, samples, card_of(again).test)
    np.testing.assert_allclose(found.scores, apply_temperature(table, temperature, "x").scores, rtol=1e-6)
    assert found.metrics == result.metrics
    assert "probabilities averaged, temperature 1.7; 6 videos" in found.protocol_line
    assert card_of(load(weights)) == card  # the weights stay as they are

    with pytest.raises(UserError, match="already"):
        store_temperature(str(out), tmp_path / "twice.safetensors", temperature, table)
    with pytest.raises(UserError, match="holds scores of other weights"):
        store_temperature(str(weights), out, temperature, replace(table, weights="0" * 16))
    with pytest.raises(UserError, match="of other classes"):
        store_temperature(str(weights), out, temperature, replace(table, class_names=["a", "b"]))


def test_calibrated_weights_replace_no_other_file(recipe, tmp_path):
    card = ModelCard.of(recipe, ("down", "up"))
    weights = tmp_path / "w.safetensors"
    save_weights(weights, {"a": torch.ones(1)}, card)
    save_weights(tmp_path / "other.safetensors", {"a": torch.ones(1)}, card)
    (tmp_path / "text.safetensors").write_text("mine")
    for name, message in (
        ("w.safetensors", "is an input of this command"),
        ("other.safetensors", "is not a weights file with a temperature"),
        ("text.safetensors", "is not a weights file with a temperature"),
        ("new.pt", r"written as \.safetensors"),
    ):
        with pytest.raises(UserError, match=message):
            check_store(str(weights), tmp_path / name)
    assert calibrated_file(str(tmp_path)) == tmp_path / "calibrated.safetensors"
    assert calibrated_file("tsm@mmaction2").name == "tsm@mmaction2_calibrated.safetensors"
