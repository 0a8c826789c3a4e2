"""The checkpoint of an interrupted run is checked before a training continues with it."""

import json
from dataclasses import asdict

import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10
from mmaction_lite.training.run_folder import Progress
from mmaction_lite.training.saved_state import (
    check_card,
    read_progress,
    read_saved,
    restore_state,
    restore_weights,
)
from mmaction_lite.weights.card import ModelCard
from mmaction_lite.weights.checkpoint import save_state


@pytest.fixture
def card(recipe):
    return ModelCard.of(recipe, ("down", "up"))


@pytest.fixture
def path(tmp_path, card):
    state = {"card": card.to_json(), "model": {}, "recipe": "text", "progress": asdict(Progress())}
    save_state(tmp_path / "last.pt", state)
    return tmp_path / "last.pt"


def test_a_saved_state_is_read(path, card):
    saved, found = read_saved(path)
    assert found == card
    assert read_progress(path, saved["progress"], Progress) == Progress()


def test_a_damaged_file_names_the_best_weights(path, card):
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"last\.pt: is damaged"):
        read_saved(path)
    path.with_name("best.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.pt: is damaged .*restore a copy .* --init-from .*best\.pt$"):
        read_saved(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"card": "{}"}, "no checkpoint of this version"),
        ({"card": 3}, "no checkpoint of this version"),
        ({"recipe": b"x"}, "no text 'recipe'"),
        ({"progress": 3}, "no dict 'progress'"),
        ({"classes": ["left", "right"]}, "of another network or other classes"),
        ({"builder": "tsn_r10"}, "of another network or other classes"),
    ],
)
def test_other_content_is_one_line(change, message, path, card, tmp_path):
    fields = json.loads(card.to_json())
    fields |= {name: value for name, value in change.items() if name in ("classes", "builder")}
    saved = {"card": json.dumps(fields), "model": {}, "recipe": "text", "progress": {}}
    saved |= {name: value for name, value in change.items() if name in saved}
    save_state(path, saved)
    with pytest.raises(UserError, match=rf"last\.pt: .*{message}"):
        check_card(path, read_saved(path)[1], card)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "lacks or adds the field 'epoch', so another version"),
        ({"step": "3"}, "step of the progress is '3'; expected an integer"),
        ({"best_score": float("nan")}, "best_score of the progress is nan; expected a number"),
    ],
)
def test_progress_of_another_version_or_type_is_one_line(change, message, path):
    with pytest.raises(UserError, match=message):
        read_progress(path, asdict(Progress()) | change, Progress)


def test_weights_and_states_that_do_not_fit_are_one_line(path):
    model = tsm_r10(num_classes=2, width=8)
    weights = model.state_dict()
    restore_weights(path, weights, model)
    bad = weights | {"fc.bias": torch.tensor([1.0, float("nan")])}
    for wrong, message in ((bad, r"fc\.bias \(1 of 2 values\)"), ({}, "do not fit"), (3, "cannot be read")):
        with pytest.raises(UserError, match=rf"last\.pt: {message}|{message}"):
            restore_weights(path, wrong, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3, 4, 20, 28)).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    restore_state(path, "optimizer", saved, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    for wrong in (
        3,
        {},
        saved | {"param_groups": []},
        saved | {"param_groups": [saved["param_groups"][0] | {"momentum": "x"}]},
        saved | {"state": {0: {"momentum_buffer": torch.ones(3)}}},
        saved | {"state": {0: {"momentum_buffer": saved["state"][0]["momentum_buffer"] / 0}}},
    ):
        with pytest.raises(UserError):
            restore_state(path, "optimizer", wrong, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
