"""Mutated weights, score files and run files are read or refused in one line, in bounded time and memory.

`MMACTION_LITE_FUZZ` sets the number of files. The mutants run in a process of their own with 2 GB of memory
above what the imports take, which a signal or a hang would end.
"""

import contextlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.files import read_json_lines
from mmaction_lite.models import tsm_r10
from mmaction_lite.report.run_folder import read_run
from mmaction_lite.tasks.score_files import read_scores
from mmaction_lite.training.run_folder import Progress, RunFolder
from mmaction_lite.weights import convert_file, load
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.checkpoint import save_state
from tests.conftest import small_recipe
from tests.data.test_loader import numbered
from tests.fuzz import run_alone

COUNT = int(os.environ.get("MMACTION_LITE_FUZZ", "440"))
LONGEST_SECONDS = 20
MOST_BYTES = 2 << 30
VALUES = (None, True, -1, 0, 3000, 10**9, 10**30, 1e308, -0.5, "x", "", "\x1b[2J", [], {}, [[]], "é" * 1000)
TOKENS = (
    b"\x80\x02",
    b")R",
    b"}",
    b"\xff\xff\xff\x7f",
    b"J\xff\xff\xff\x7f",
    b"\x00" * 8,
    b"NaN",
    b"(",
    b"\n",
)


def originals(folder: Path) -> tuple[Any, Any]:
    """Write one file of every kind; return recipe and samples of the run."""
    recipe, samples = small_recipe(), numbered(6)
    card = ModelCard.of(recipe, samples.classes)
    model = card.build()
    save_weights(folder / "own.safetensors", model.state_dict(), card)
    save_state(folder / "best.pt", {"card": card.to_json(), "model": model.state_dict()})
    foreign = {"state_dict": model.state_dict(), "meta": {"CLASSES": samples.classes, "config": "a"}}
    torch.save(foreign, folder / "foreign.pth")
    torch.save(foreign, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    (folder / "arrays.pkl").write_bytes(pickle.dumps({"state_dict": arrays}, 2))
    scores = {
        "paths": np.array(["a", "b"]),
        "labels": np.array([0, 1]),
        "scores": np.full((2, 2), 0.5, np.float32),
        "class_names": np.array(["a", "b"]),
        "protocol": np.array("p"),
        "task": np.array('{"task": "single_label"}'),
    }
    np.savez_compressed(folder / "val.npz", **scores)  # pyright: ignore[reportArgumentType]
    rows = [
        {"step": 1, "epoch": 0.5, "loss": 1.0, "lr": 0.1, "top1": 0.5},
        {"step": 2, "epoch": 1.0, "split": "val", "loss": 1.0, "top1": 0.5, "protocol": "p"},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "quarantine.jsonl").write_text('{"path": "a", "reason": "b"}\n')
    (folder / "recipe.txt").write_text("# name, seed 0\n")
    with RunFolder(folder / "run", recipe, samples, seed=0, resume=False) as run:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.ones(1, 3, 4, 20, 28)).sum().backward()
        optimizer.step()
        run.begin(model, {"optimizer": optimizer})
    return recipe, samples


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Change, insert or delete bytes, or cut the end."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data) or 1)
        # Headers, pickles and directories of archives are at the ends.
        at = rng.choice((at, at % 400, len(data) - 1 - at % 1500))
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 2:
            del data[at : at + rng.randrange(1, 30)]
        elif kind == 3:
            data[at : at + 8] = rng.choice((b"\xff" * 8, b"\x00" * 8, rng.randbytes(8)))
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def mutated_card(text: str, rng: random.Random) -> str:
    """Replace, delete or add one value of a card."""
    fields = json.loads(text)
    node, path = fields, [fields]
    while isinstance(node, dict | list) and node and rng.random() < 0.8:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = node[key]
        path.append(node)
    parent = next(value for value in reversed(path) if isinstance(value, dict | list))
    if isinstance(parent, dict):
        key = rng.choice([*parent, "new"])
        parent[key] = rng.choice((*VALUES, float("nan")))
        if rng.random() < 0.1:
            del parent[key]
    else:
        parent.append(rng.choice(VALUES))
    return json.dumps(fields)


def readers(folder: Path, recipe: Any, samples: Any) -> dict[str, Callable[[], Any]]:
    """Return what reads each file of `originals`."""
    out = folder / "out.safetensors"

    def resume() -> None:
        model = tsm_r10(num_classes=len(samples.classes), width=8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with RunFolder(folder / "run", recipe, samples, seed=0, resume=True) as run:
            assert isinstance(run.begin(model, {"optimizer": optimizer}), Progress)
        optimizer.step()

    return {
        "own.safetensors": lambda: load(folder / "own.safetensors"),
        "card": lambda: load(folder / "own.safetensors"),
        "best.pt": lambda: load(folder / "best.pt"),
        "foreign.pth": lambda: convert_file(folder / "foreign.pth", recipe, out),
        "legacy.pth": lambda: convert_file(folder / "legacy.pth", recipe, out),
        "arrays.pkl": lambda: convert_file(folder / "arrays.pkl", recipe, out),
        "run/last.pt": resume,
        "val.npz": lambda: read_scores(folder / "val.npz"),
        "metrics.jsonl": lambda: (read_run(folder), read_json_lines(folder / "metrics.jsonl", "step")),
        "quarantine.jsonl": lambda: read_run(folder),
        "recipe.txt": lambda: read_run(folder),
    }


def run(folder: Path, count: int) -> dict[str, Any]:
    """Read `count` mutants; return the outcomes, the longest time and the memory they took."""
    warnings.simplefilter("ignore")
    recipe, samples = originals(folder)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # Address space: PyTorch reserves several gigabytes that it does not use.
    reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + MOST_BYTES, reserved + MOST_BYTES))
    outcomes, faults, longest = Counter(), [], 0.0
    kinds = readers(folder, recipe, samples)
    whole = {name: (folder / name).read_bytes() for name in kinds if name != "card"}
    card = ModelCard.of(recipe, samples.classes).to_json()
    for number in range(count):
        rng = random.Random(number)
        name = list(kinds)[number % len(kinds)]
        file = folder / ("own.safetensors" if name == "card" else name)
        if name == "card":
            weights = load_weights(whole["own.safetensors"])
            file.write_bytes(safetensors_bytes(weights, mutated_card(card, rng)))
        else:
            file.write_bytes(mutated(whole[name], rng))
        (folder / "out.safetensors").unlink(missing_ok=True)
        began = time.monotonic()
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                kinds[name]()
            outcomes["read"] += 1
        except UserError as error:
            outcomes["refused"] += 1
            if "\n" in str(error) or not str(error).isprintable():
                faults.append(f"{number} {name}: not one printable line: {error!r}")
        except BaseException as error:
            faults.append(f"{number} {name}: {type(error).__name__}: {error}"[:300])
        longest = max(longest, time.monotonic() - began)
        file.write_bytes(whole[file.name if name == "card" else name])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start
    return {"outcomes": dict(outcomes), "faults": faults, "seconds": longest, "bytes": peak}


def load_weights(content: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load as parse

    return parse(content)


def safetensors_bytes(weights: dict[str, torch.Tensor], card: str) -> bytes:
    from safetensors.torch import save

    return save(weights, {"card": card})


@pytest.mark.slow
def test_mutated_files_are_read_or_refused_in_bounded_memory_and_time(tmp_path):
    found = run_alone(__name__, tmp_path, COUNT)
    assert not found["faults"]
    assert found["seconds"] < LONGEST_SECONDS
    assert found["bytes"] < MOST_BYTES
    assert min(found["outcomes"][outcome] for outcome in ("read", "refused")) > COUNT // 20
    shutil.rmtree(tmp_path)
