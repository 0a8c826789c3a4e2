"""Run a command as the installed program does."""

import sys

import pytest

from mmaction_lite.cli import main


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
