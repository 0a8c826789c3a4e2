"""Random damage to annotation files of every format: a result or one line, never another exception.

`MMACTION_LITE_FUZZ` sets the number of damaged files.
"""

import json
import os
import subprocess
import sys

import pytest

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.annotations.tables import write_table
from mmaction_lite.errors import UserError
from tests.data.test_published import SPLIT_FILES

FILES = {
    "train.txt": "a.mp4 run\nb c.mp4 jump\n# a comment\nd/e.avi brush hair\n",
    "numbers/train.txt": "a.mp4 0\n\"b 2.mp4\" 1\nc.mp4 2\n",
    "many/train.txt": "a.mp4 0 3\nb.mp4 1\nc.mp4 2 1 0\n",
    "frames/train.txt": "clips/a 12 0\nclips/b c 10 1\n",
    "ranges/train.txt": "clips/a 0 12 0\nclips/b 5 10 1\n",
    "train.csv": "path,label,weight\na.mp4,run,1\n\"b, c.mp4\",jump,0.5\n",
    "segments/train.csv": "path,label,start_seconds,end_seconds\na.mp4,run,1.5,3\nb.mp4,jump,,2\n",
    "semicolons/train.csv": "sep=;\nPath;Labels\na.mp4;run|jump\nb.mp4;\n",
    "no_header/train.csv": "a.mp4,run\nb.mp4,jump\n",
    "verbs/train.tsv": "path\tverb\tnoun\na.mp4\topen\tdoor\nb.mp4\tclose\tbox\n",
    "train.jsonl": '{"path": "a", "label": "run"}\n{"path": "b", "labels": ["run", "jump"], "weight": 2}\n',
}  # fmt: skip
TOKENS = [
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x00",
        b"\r",
        b"\n",
        b"\t",
        b'"',
        b"'",
        b",",
        b";",
        b"|",
        b"#",
        b"\\",
        b"/",
    ),
    *(b"-1", b"1.0", b"1e400", b"NaN", b"Infinity", b"null", b"true", b"[", b"{", b"[[[[", b"9" * 5000, b" "),
    *(b"\xe2\x80\xa8", b"\xc2\x85", b"\x1b[2J", b"\xe2\x80\xae", b"..", b"\xd9\xa3", b"A" * 140_000, b"''"),
    *(
        b"[" * 100_000,
        b"\xed\xa0\x80",
        b"\\ud800",
        b"99999999",
        b"{}",
        b"%s%d",
        b"://",
        b".tar/",
        b"\xcc\x88",
    ),
]


def contents():
    """File name and bytes of a valid file of each format."""
    found = {name: text.encode() for name, text in FILES.items()}
    found |= {f"published/{name}": text.encode() for name, (text, *_) in SPLIT_FILES.items()}
    found["classes/train.txt"] = b"a.mp4 0\nb.mp4 1\n"
    found["classes/classes.txt"] = "run\nÜbung\n拍手\n".encode()
    return found


def parquet_contents():
    import io

    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    found = {}
    for name, columns in {
        "one": {"path": ["a", "b"], "label": ["x", "y"]},
        "many": {"path": ["a", "b"], "labels": [["x"], ["y", "x"]], "weight": [1.0, None]},
        "parts": {"path": ["a"] * 50, "label": [1] * 50, "start_frame": [0] * 50, "end_frame": [9] * 50},
    }.items():
        stream = io.BytesIO()
        parquet.write_table(pyarrow.table(columns), stream)
        found[f"{name}/train.parquet"] = stream.getvalue()
    return found


def damage(data, rng):
    """Change a few bytes, insert or delete a part, cut the end, or repeat a part."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(data) + 1))
        end = min(len(data), at + int(rng.integers(1, 12)))
        match int(rng.integers(6)):
            case 0:
                data[at:end] = rng.bytes(end - at)
            case 1:
                data[at:at] = TOKENS[int(rng.integers(len(TOKENS)))]
            case 2:
                del data[at:end]
            case 3:
                del data[at:]
            case 4:
                data[at:at] = data[at : at + 200] * int(rng.integers(1, 40))
            case 5:
                data[at:end] = TOKENS[int(rng.integers(len(TOKENS)))]
    return bytes(data)


def read_all(root, first, count):
    """Read `count` damaged files; return what went wrong, how many were read, and the longest time."""
    import time

    import numpy as np

    valid = contents() | parquet_contents()
    names = sorted(valid)
    wrong, sound, slowest = [], 0, 0.0
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        name = names[number % len(names)]
        folder = root / str(number)
        for other, data in valid.items():
            if other.split("/")[0] == name.split("/")[0] and (other == name or "classes" in other):
                inner = folder / other.split("/", 1)[-1]
                inner.parent.mkdir(parents=True, exist_ok=True)
                inner.write_bytes(damage(data, rng) if other == name else data)
        (folder / "clips" / "a").mkdir(parents=True, exist_ok=True)
        print(number, name, file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            samples = read_split(folder, "train")
            write_table(
                root / "again.csv", samples, range(len(samples)), [f"{i}" for i in range(len(samples))]
            )
            sound += 1
        except UserError as error:
            if "\n" in str(error) or len(str(error)) > 2000:
                wrong.append(f"{number} {name}: {error!r}"[:300])
        except BaseException as error:
            wrong.append(f"{number} {name}: {error!r}"[:300])
        slowest = max(slowest, time.monotonic() - start)
    return {"wrong": wrong, "sound": sound, "slowest": slowest}


@pytest.mark.slow
def test_damaged_annotation_files_give_a_result_or_one_line(tmp_path):
    count = int(os.environ.get("MMACTION_LITE_FUZZ", "1000"))
    code = f"""
import json, resource, sys
from pathlib import Path
from tests.data.test_annotation_faults import read_all
found = read_all(Path({str(tmp_path)!r}), 0, {count})
found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode} at {done.stderr[-500:]}"
    found = json.loads(done.stdout)
    print(
        f"{count} files, {found['sound']} read: {found['slowest']:.1f} s at most, {found['peak']:.0f} MiB "
        "at most"
    )
    assert found["wrong"] == []
    assert found["slowest"] < 20
    assert found["peak"] < 2048
