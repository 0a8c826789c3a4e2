"""Checkpoints: written whole, read without running code from them."""

import contextlib
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from mmaction_lite import load
from mmaction_lite.errors import UserError
from mmaction_lite.weights.card import ModelCard
from mmaction_lite.weights.checkpoint import load_state, save_state


@pytest.mark.slow
def test_a_process_killed_while_saving_leaves_a_complete_file(tmp_path):
    code = textwrap.dedent(f"""
        import torch; from pathlib import Path; from mmaction_lite.weights.checkpoint import save_state
        print("ready", flush=True)
        for step in range(100000):
            state = {{"card": "", "step": step, "a": torch.full((300000,), step)}}
            save_state(Path({str(tmp_path / "last.pt")!r}), state)
    """)
    rng = np.random.default_rng(0)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(0.05 + rng.random() * 0.3)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        process.stdout.close()
        if (tmp_path / "last.pt").exists():
            state = torch.load(tmp_path / "last.pt", weights_only=True)
            assert (state["a"] == state["step"]).all()
    assert (tmp_path / "last.pt").exists()


def test_a_damaged_checkpoint_is_a_users_error_whatever_byte_is_wrong(recipe, tmp_path):
    card = ModelCard.of(recipe, ("a", "b"))
    save_state(tmp_path / "whole.pt", {"card": card.to_json(), "model": card.build().state_dict()})
    whole = (tmp_path / "whole.pt").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        (tmp_path / "x.pt").write_bytes(
            damaged[: rng.integers(len(damaged))] if rng.random() < 0.3 else damaged
        )
        with contextlib.suppress(UserError):
            load(tmp_path / "x.pt")


def test_a_state_is_read_as_it_was_written(tmp_path):
    state = {
        "card": "",
        "model": {"a": torch.arange(3.0)},
        "progress": {"step": 3, "best": 0.5},
        "names": ["b"],
    }
    save_state(tmp_path / "last.pt", state)
    again = load_state(tmp_path / "last.pt")
    assert torch.equal(again["model"].pop("a"), state["model"].pop("a"))
    assert again == state


def test_files_of_other_programs_are_a_one_line_error(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt: no such file"):
        load_state(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("nothing")
    with pytest.raises(UserError, match=r"text\.pt: is damaged or not a checkpoint of mmaction-lite"):
        load_state(tmp_path / "text.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: was not written by mmaction-lite train"):
        load_state(tmp_path / "other.pt")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("code of the file was run",))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"card": "", "model": Trap()}, tmp_path / "trap.pt", pickle_module=pickle)
    with pytest.raises(UserError, match="is damaged or not a checkpoint"):
        load_state(tmp_path / "trap.pt")
