"""Mutated score files are scored, or refused in one line, in bounded time and memory.

`MMACTION_LITE_FUZZ` sets the number of files. The mutants run in a process of their own with 2 GB of memory
above what the imports take, which a signal or a hang would end.
"""

import io
import json
import os
import random
import resource
import sys
import time
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from mmaction_lite.cli import main
from mmaction_lite.errors import UserError
from mmaction_lite.tasks import score_parquet
from mmaction_lite.tasks.named import task_named
from mmaction_lite.tasks.score_files import Scores, read_scores, write_scores
from tests.fuzz import run_alone
from tests.weights.test_fuzz import VALUES, mutated, mutated_card

COUNT = int(os.environ.get("MMACTION_LITE_FUZZ", "150"))
LONGEST_SECONDS = 20
MOST_BYTES = 2 << 30
VIDEOS = 24
CLASSES = {
    "single_label": ["a", "b", "c", "d"],
    "multi_label": ["a", "b", "c", "d"],
    "verb_noun": ["verb: a", "verb: b", "noun: a", "noun: b"],
}
DTYPES = ["f2", "f8", ">f4", "g", "F", "i1", "u8", "?", "S3", "U2", "M8[s]", "m8[s]", "V4", "O", "i4,f4"]
NUMBERS = (np.nan, np.inf, -np.inf, -1.0, 0.0, 1.0, 2.0, 1e-45, 1e300, 3.0, 4.0, 2.0**63, -(2.0**31))
TEXTS = (
    "",
    "\x1b[31m",
    "a\nb",
    "\u202e",
    "x" * 20_000,
    "\x00",
    "../../a",
    "#t=",
    "verb: a",
    "é" * 300,
    "1,2",
)
SLICES = b"video,weather\n" + b"".join(b"%d.mp4,%d\n" % (n, n % 3) for n in range(VIDEOS))
# F is the mutant, G and H are undamaged files of the same videos.
COMMANDS = [
    "F --json",
    "F",
    "F G --json",
    "G F H --weights 1,2,0.5",
    "F G --match name",
    "G F --compare --csv flips.csv --json",
    "F G --compare",
    "F --temperature-from G",
    "G --temperature-from F --json",
    "F G --fit-on H --fit-on F",
    "F --more --threshold 0.3",
    "F --per-class classes.csv --csv table.csv --by folder",
    "F --slices slices.csv --json",
    "G --slices S --csv table.csv",
    "F --dump out.npz",
    "F G --dump out.parquet",
    "F --picture r.svg",
]


def table_of(file: Path, task: str, seed: int) -> Scores:
    """Scores of every video, one of them unreadable."""
    rng = np.random.default_rng(seed)
    scores = rng.random((VIDEOS, 4), np.float32)
    scores[5] = np.nan
    labels = {
        "single_label": np.arange(VIDEOS) % 4,
        "multi_label": rng.random((VIDEOS, 4)) < 0.4,
        "verb_noun": np.stack([np.arange(VIDEOS) % 2, np.arange(VIDEOS) % 3 % 2], 1),
    }[task]
    return Scores(
        file=file,
        paths=[f"/clips/{n % 4}/{n}.mp4" for n in range(VIDEOS)],
        labels=labels,
        scores=scores,
        class_names=CLASSES[task],
        protocol="1x1x8 frames: 1 clip × 1 crop",
        task=task_named(task).for_classes(CLASSES[task]),
        weights="0123456789abcdef" if seed % 2 else None,
        views=2 if seed % 3 else None,
        view_logits=rng.random((VIDEOS, 2, 4), np.float32) if seed % 3 else None,
    )


def mutated_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """Change type, shape or values of an array."""
    kind = rng.randrange(12)
    if kind == 0:
        return array.astype(rng.choice(DTYPES))
    if kind == 1:
        changes = (
            array.T,
            array[..., None],
            array.ravel(),
            array[:0],
            array[1:],
            array.ravel()[:1].reshape(()),
        )
        return np.asarray(rng.choice(changes))
    if kind == 2:
        return np.repeat(array, rng.choice((0, 2, 400)), axis=0)
    if kind == 3:
        return np.zeros(rng.choice(((0, 0), (VIDEOS, 0), (3000, 1000), (10**7, 0), (0, 10**7))), array.dtype)
    changed = array.astype("U30000" if array.dtype.kind == "U" and kind == 4 else array.dtype)
    values = NUMBERS if array.dtype.kind in "biuf" else TEXTS
    for _ in range(rng.choice((1, 1, 5, changed.size))):
        at = rng.randrange(changed.size)
        changed.reshape(-1)[at] = np.array(rng.choice(values)).astype(changed.dtype)
    return changed


def mutated_npz(table: Scores, rng: random.Random) -> None:
    """Change one or two arrays of a score file, and rarely some bytes."""
    write_scores(table)
    with np.load(table.file) as archive:
        arrays: dict[str, Any] = dict(archive)
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(list(arrays))
        if rng.random() < 0.08:
            del arrays[name]
        elif name == "task":
            arrays[name] = np.array(mutated_card(str(arrays[name]), rng))
        else:
            arrays[name] = mutated_array(arrays[name], rng)
    save = rng.choice((np.savez, np.savez_compressed))
    save(table.file, allow_pickle=True, **arrays)


def mutated_parquet(table: Scores, rng: random.Random) -> None:
    """Change the columns or the metadata of a score file."""
    import pyarrow as arrow
    from pyarrow import parquet

    write_scores(table)
    content = parquet.read_table(table.file)
    metadata = content.schema.metadata[score_parquet.KEY].decode()
    name = rng.choice(content.column_names)
    at, kind = content.column_names.index(name), rng.randrange(7)
    if kind <= 1:
        metadata = mutated_card(metadata, rng)
    elif kind == 2:
        values = content[name].to_pylist()
        values[rng.randrange(len(values))] = rng.choice(
            (None, *VALUES, *NUMBERS, [np.nan] * 4, [1], [1, 2, 3])
        )
        content = content.set_column(at, name, arrow.array(values))
    elif kind == 3:
        content = content.drop_columns([name])
    elif kind == 4:
        target = rng.choice((arrow.string(), arrow.float64(), arrow.int8(), arrow.list_(arrow.float64())))
        content = content.set_column(at, name, content[name].cast(target))
    elif kind == 5:
        content = content.append_column(rng.choice(("new", name)), content[name])
    else:
        content = arrow.concat_tables([content] * rng.choice((0, 2, 300)) or [content.slice(0, 0)])
    content = content.replace_schema_metadata({score_parquet.KEY: metadata.encode("utf-8", "replace")})
    parquet.write_table(content, table.file, compression=rng.choice(("zstd", "snappy", "none")))


def write_mutant(folder: Path, rng: random.Random) -> tuple[Path, str]:
    """Write a mutated score file; return it and its kind of labels."""
    task, suffix = rng.choice(list(CLASSES)), rng.choice((".npz", ".npz", ".parquet"))
    table = table_of(folder / f"mutant{suffix}", task, rng.randrange(6))
    how = rng.random()
    if how < 0.35:
        write_scores(table)
        table.file.write_bytes(mutated(table.file.read_bytes(), rng))
    else:
        with suppress(Exception):  # a mutation that the format cannot hold leaves the file undamaged
            (mutated_npz if suffix == ".npz" else mutated_parquet)(table, rng)
    if how > 0.9:
        table.file.write_bytes(mutated(table.file.read_bytes(), rng))
    return table.file, task


def call(arguments: list[str]) -> tuple[int, str, str]:
    """Run a command: exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", ["mmaction-lite", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue(), err.getvalue()
    raise AssertionError("no exit code")


def fault_of(code: int, output: str, error: str, is_json: bool) -> str:
    """Return the fault of a finished command; empty if it has none."""
    if code not in (0, 2):
        return f"exit code {code}: {error[-300:]}"
    lines = error.splitlines()
    if code == 2 and (not lines or not lines[-1].startswith("error: ") or output):
        return f"not one line: {error[-300:]!r}, printed {output[:100]!r}"
    if not all(line.isprintable() for line in [*lines, *output.splitlines()]):
        return f"not printable: {error[-300:]!r} {output[:300]!r}"
    if code == 0 and is_json:
        try:
            json.loads(output, parse_constant=lambda name: 1 / 0)
        except (ValueError, ZeroDivisionError):
            return f"no JSON: {output[:300]!r}"
    return ""


def run(folder: Path, count: int, first: int = 0) -> dict[str, Any]:
    """Score `count` mutants; return the outcomes, the longest processor time and their memory."""
    warnings.simplefilter("error")
    os.chdir(folder)
    undamaged = {}
    for task in CLASSES:
        for name, seed in (("G", 1), ("H", 3)):
            undamaged[task, name] = folder / f"{name}_{task}.npz"
            write_scores(table_of(undamaged[task, name], task, seed))
    (folder / "slices.csv").write_bytes(SLICES)
    for command in COMMANDS:  # imports
        call(["score", *(str(undamaged["single_label", "G"]) if w in "FGH" else w for w in command.split())])
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + MOST_BYTES, reserved + MOST_BYTES))
    outcomes, faults, longest = Counter(), [], 0.0
    for number in range(first, first + count):
        rng = random.Random(number)
        with warnings.catch_warnings(action="ignore"):
            file, task = write_mutant(folder, rng)
        (folder / "mutant.csv").write_bytes(mutated(SLICES, rng))
        names = {"F": file, "G": undamaged[task, "G"], "H": undamaged[task, "H"], "S": folder / "mutant.csv"}
        command = rng.choice(COMMANDS)
        began = time.process_time()
        try:
            code, output, error = call(["score", *(str(names.get(word, word)) for word in command.split())])
            fault = fault_of(code, output, error, "--json" in command)
            outcomes["scored" if code == 0 else "refused"] += 1
        except BaseException as error:
            fault = f"{type(error).__name__}: {error}"
        fault = fault or replaced(file, task)
        longest = max(longest, time.process_time() - began)
        if fault:
            faults.append(f"{number} {file.name} {task}, {command}: {fault}"[:600])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start
    return {"outcomes": dict(outcomes), "faults": faults, "seconds": longest, "bytes": peak}


def replaced(file: Path, task: str) -> str:
    """Write scores to the name of a mutant, as `test --dump` does; return the fault, if any."""
    before, table = file.read_bytes(), replace(table_of(file, task, 0))
    try:
        write_scores(table)
        np.testing.assert_array_equal(read_scores(file).scores, table.scores)
    except UserError as error:
        if file.read_bytes() != before:
            return f"refused and changed: {error}"
        return "" if str(error).isprintable() else f"not one line: {error}"
    except BaseException as error:
        return f"--dump: {type(error).__name__}: {error}"
    finally:
        file.unlink()
    return ""


@pytest.mark.slow
def test_mutated_score_files_are_scored_or_refused_in_bounded_memory_and_time(tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("sklearn")
    found = run_alone(__name__, tmp_path, COUNT)
    assert not found["faults"]
    assert found["seconds"] < LONGEST_SECONDS
    assert found["bytes"] < MOST_BYTES
    assert min(found["outcomes"][outcome] for outcome in ("scored", "refused")) > COUNT // 20
