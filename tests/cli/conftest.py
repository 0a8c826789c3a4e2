"""Run a command as the installed program does."""

import sys

import pytest

from mmaction_lite import list_recipes
from mmaction_lite.cli import main

SMALL = ["--set", "epochs=1", "--set", "batch_size=4", "--set", "model.width=8"]


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command: (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mmaction-lite", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def motions_recipe():
    return next(name for name in list_recipes() if name.startswith("tsm") and "motions" in name)


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory, motions_recipe):
    """A run folder of the small TSM on the tiny set."""
    from mmaction_lite import get_recipe
    from mmaction_lite.recipes.overrides import apply_overrides
    from mmaction_lite.training.loop import train

    out = tmp_path_factory.mktemp("runs") / "trained"
    train(apply_overrides(get_recipe(motions_recipe), SMALL[1::2]), tiny, out)
    return out
