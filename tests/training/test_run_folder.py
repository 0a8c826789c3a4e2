"""Run folder: its files, and the checks before a run is resumed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10, tsn_r10
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.training.run_folder import Progress, RunFolder
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.checkpoint import load_state, save_state
from tests.data.test_loader import numbered


@pytest.fixture
def samples() -> Samples:
    return replace(numbered(6), classes=("down", "up"))


def network(value: float = 0.0) -> nn.Module:
    model = tsm_r10(num_classes=2, width=8)
    nn.init.constant_(model.fc.weight, value)
    return model


def begin(out: Path, recipe, samples: Samples, model: nn.Module, **options) -> Progress:
    """Open the folder, prepare it, close it."""
    with RunFolder(out, recipe, samples, **{"seed": 0, "resume": False} | options) as run:
        return run.begin(model, {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1)})


def test_a_new_run_can_be_resumed_from_its_first_moment_on(tmp_path, recipe, samples):
    progress = begin(tmp_path / "run", recipe, samples, network(1.0))
    assert progress == Progress()
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["last.pt", "recipe.txt"]
    text = (tmp_path / "run" / "recipe.txt").read_text()
    assert text.startswith(f"# {recipe.name}, seed 0\n# trained on 6 clips of 2 classes, checksum ")
    assert text.endswith(f"{recipe}\n")
    model = network()
    assert begin(tmp_path / "run", recipe, samples, model, resume=True) == progress
    assert (model.get_parameter("fc.weight") == 1).all()


def test_weights_are_copied_when_they_are_saved(tmp_path, recipe, samples):
    """They change while the file is written in the background."""
    model, optimizer = network(1.0), torch.optim.SGD(network().parameters(), lr=0.1)
    with RunFolder(tmp_path / "run", recipe, samples, seed=0, resume=False) as run:
        progress = run.begin(model, {"optimizer": optimizer})
        progress.step = 3
        run.save_last(progress, model, {"optimizer": optimizer})
        nn.init.zeros_(model.get_parameter("fc.weight"))
        run.settle()
    state = load_state(tmp_path / "run" / "last.pt")
    assert state["progress"]["step"] == 3
    assert (state["model"]["fc.weight"] == 1).all()


def test_weights_that_are_not_finite_are_refused(tmp_path, recipe, samples):
    with RunFolder(tmp_path / "run", recipe, samples, seed=0, resume=False) as run:
        progress = run.begin(network(), {})
        progress.step = 7
        with pytest.raises(UserError, match=r"step 7: fc\.weight holds values that are not finite"):
            run.save_last(progress, network(float("nan")), {})
    assert load_state(tmp_path / "run" / "last.pt")["progress"]["step"] == 0


def test_only_the_same_run_is_continued(tmp_path, recipe, samples):
    out = tmp_path / "run"
    begin(out, recipe, samples, network())
    with pytest.raises(UserError, match=r"run: is already used; pass --resume"):
        begin(out, recipe, samples, network())
    with pytest.raises(UserError, match=r"cannot resume: .*seed 0.*seed 1"):
        begin(out, recipe, samples, network(), resume=True, seed=1)
    with pytest.raises(UserError, match=r"cannot resume: .*2e_tiny.*3e_tiny"):
        begin(out, replace(recipe, epochs=3), samples, network(), resume=True)
    with pytest.raises(UserError, match=r"cannot resume: .*trained on 6 clips .*trained on 5 clips"):
        begin(out, recipe, replace(numbered(5), classes=samples.classes), network(), resume=True)
    with (
        pytest.raises(UserError, match=r"has saved no 'sharded optimizer'; pass --shard as it was"),
        RunFolder(out, recipe, samples, seed=0, resume=True) as run,
    ):
        run.begin(network(), {"sharded optimizer": torch.optim.SGD(network().parameters(), lr=0.1)})


def test_files_of_a_killed_run_do_not_prevent_a_new_run(tmp_path, recipe, samples):
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.txt").write_text("half a re")
    (out / ".last.pt.x1y2").write_bytes(b"half a checkpoint")
    begin(out, recipe, samples, network())
    assert sorted(file.name for file in out.iterdir()) == ["last.pt", "recipe.txt"]


def test_other_processes_write_nothing(tmp_path, recipe, samples):
    begin(tmp_path / "run", recipe, samples, network(), writes=False)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, recipe, samples):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"pass another --out"):
        begin(tmp_path / "file" / "run", recipe, samples, network())


def test_a_run_starts_from_the_best_weights_of_another(tmp_path, recipe, samples):
    """And the card says so."""
    first = tmp_path / "first"
    with RunFolder(first, recipe, samples, seed=0, resume=False) as run:
        run.begin(network(), {})
        state = {"card": run.card.to_json(), "model": network(2.0).state_dict()}
        save_state(first / "best.pt", state)
    model = network()
    with RunFolder(tmp_path / "second", recipe, samples, seed=0, resume=False) as run:
        conversion = run.start_from(first, model)
        assert run.card.started_from
    assert (model.get_parameter("fc.weight") == 2).all()
    assert conversion.reinitialized == []


def start_from(file: Path, recipe, samples: Samples, model: nn.Module, out: Path):
    with RunFolder(out, recipe, samples, seed=0, resume=False) as run:
        return run.start_from(file, model)


def test_initial_weights_of_another_form_are_refused_or_noted(tmp_path, recipe, samples):
    card = ModelCard.of(recipe, samples.classes)
    save_weights(tmp_path / "a.safetensors", network(2.0).state_dict(), card)
    other = replace(recipe, model=Build(tsm_r10, width=8, shift_div=8))
    with pytest.raises(UserError, match=r"a\.safetensors: .* shift_div=4, .*--set model\.shift_div=4"):
        start_from(tmp_path / "a.safetensors", other, samples, network(), tmp_path / "run")
    tsn = replace(recipe, model=Build(tsn_r10, width=8), normalize=Normalize(mean=(0, 0, 0)))
    found = start_from(
        tmp_path / "a.safetensors", tsn, samples, tsn_r10(num_classes=2, width=8), tmp_path / "run"
    )
    assert "note: the weights are of tsm_r10, and the training is of tsn_r10" in str(found)
    assert "--set 'normalize.mean=(123.675,116.28,103.53)'" in str(found)


def test_a_classifier_of_unknown_classes_is_noted(tmp_path, recipe, samples):
    torch.save(network(2.0).state_dict(), tmp_path / "x.pth")
    found = start_from(tmp_path / "x.pth", recipe, samples, network(), tmp_path / "run")
    assert "note: the classifier is loaded, because it has 2 classes, too." in str(found)
    torch.save(
        {"state_dict": network(2.0).state_dict(), "meta": {"CLASSES": ["Up", "left"]}}, tmp_path / "y.pth"
    )
    found = start_from(tmp_path / "y.pth", recipe, samples, network(), tmp_path / "run")
    assert found.reinitialized == ["fc.weight", "fc.bias"]
    torch.save(
        {"state_dict": network().state_dict(), "meta": {"CLASSES": ["Up", "down"]}}, tmp_path / "z.pth"
    )
    assert start_from(tmp_path / "z.pth", recipe, samples, network(), tmp_path / "run").classes == "permuted"


def test_validations_are_recorded():
    progress = Progress(step=3)
    assert progress.record_validation("top1", 0.5)
    progress.step = 6
    assert not progress.record_validation("top1", 0.5)  # not better
    assert (progress.best_score, progress.best_step, progress.validated_step) == (0.5, 3, 6)
    assert progress.bad_validations == 1
    assert progress.record_validation("top1", 0.6)
    assert (progress.best_step, progress.bad_validations) == (6, 0)


def test_a_recipe_file_of_the_user_is_not_replaced(tmp_path, recipe, samples):
    for name in ("recipe.txt", ".recipe.txt.swp"):
        out = tmp_path / name[-3:]
        out.mkdir()
        (out / name).write_text("flour, sugar")
        with pytest.raises(UserError, match="is already used"):
            begin(out, recipe, samples, network())
        assert (out / name).read_text() == "flour, sugar"
