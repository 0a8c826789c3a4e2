"""Class names and paths are the same in class folders, in every list that is written, and in score files.

`MMACTION_LITE_TABLES` sets the number of random tables of names in the slow test.
"""

import io
import os
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmaction_lite.data.annotations.classes import class_name
from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.annotations.splits import Split, read_split
from mmaction_lite.data.sources.source import open_sample
from mmaction_lite.data.tools import validate as tools
from mmaction_lite.data.tools.prepare import Form, prepare
from mmaction_lite.data.tools.validate import validate
from mmaction_lite.errors import UserError, printable
from tests.data.test_prepare import plain

PIECES = [
    *(
        "0",
        "1",
        "2",
        "9",
        "01",
        "-1",
        "1.0",
        "\u0663",
        "\u00b2",
        "#",
        "# ",
        "a",
        "b",
        "B",
        "-",
        "_",
        "+",
        "=",
        "~",
    ),
    *(
        '"',
        "'",
        ",",
        ";",
        "|",
        ":",
        "%",
        "%d",
        "\\",
        "&",
        "<b>",
        "$",
        "*",
        "?",
        "run",
        "left",
        "path",
        "label",
    ),
    *(" ", "  ", "\t", "\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\u00a0", "\u3000", "\x1b[2J", "\x7f"),
    *("\ufeff", "\u202e", "\u200f", "\u200d", "\udcff", "\udce9", "Ü", "U\u0308", "é", "e\u0301", "\uac00"),
    *("\u1100\u1161", "\u62cd", "\U0001f600", ".mp4", ".tar", ".zip", "verb: ", "train"),
]


def is_file_name(name: str) -> bool:
    return bool(name) and name[0] != "." and "/" not in name and len(os.fsencode(name)) < 60


NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join).filter(is_file_name)
NUMBERS = st.integers(0, 12).map(str) | st.integers(0, 12).map("{:02}".format)
TABLES = st.dictionaries(NAMES | NUMBERS, NAMES, min_size=2, max_size=5) | st.dictionaries(
    NUMBERS, NAMES, min_size=3, max_size=6
)


def image() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    return stream.getvalue()


IMAGE = image()


def write_clip(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(IMAGE)


def pairs(samples):
    """(path, class) of each clip; every clip must be readable."""
    for sample in range(len(samples)):
        open_sample(samples, sample).__exit__()
    return [(samples.path(i), class_name(samples.class_names(i)[0])) for i in range(len(samples))]


def check(table: dict[str, str], root: Path) -> bool:
    """Check one table: folder of each class, and the name of a clip in it. Return False if it is refused."""
    data = root / "data"
    expected = {}
    for number, (folder, clip) in enumerate(table.items()):
        for split in ("train", "val") if number % 2 else ("train",):
            write_clip(data / split / folder / clip)
            expected.setdefault(split, {})[data / split / folder / clip] = class_name(folder)
    try:
        train = read_split(data, "train")
        validate(data, plain, root / "checked")
    except UserError as error:
        message = str(error)
        assert printable(message, len(message)) == message
        return False
    assert dict(pairs(train)) == expected["train"]
    checked = read_split(root / "checked", "train")
    assert checked.classes == train.classes
    assert pairs(checked) == pairs(train)
    val = read_split(root / "checked", "val", checked.classes)
    assert dict(pairs(val)) == expected["val"]
    # The lists of a split must not depend on the other splits.
    assert dict(pairs(read_split(root / "checked" / "val.csv", "val", train.classes))) == expected["val"]
    splits: dict[Split, Samples] = {"train": train, "val": val}
    for source, form in ((data, Form(kind="frames")), (root / "checked", Form(kind="frames", shard=2))):
        out = root / f"prepared-{form.shard}"
        assert prepare(source, out, form, plain) == []
        for split, original in splits.items():
            prepared = read_split(out, split, None if split == "train" else train.classes)
            assert prepared.classes == train.classes
            assert [name for _, name in pairs(prepared)] == [name for _, name in pairs(original)]
    check_list(root / "lists", train)
    check_scores(root / "scores.npz", train)
    return True


def check_list(folder: Path, train) -> None:
    """A list `path label` of the same clips gives the same classes, or is refused."""
    folder.mkdir()
    rows = pairs(train)
    text = "".join(
        f'"{str(path).replace(chr(92), chr(92) * 2)}" {name}\n'.replace("\r", "") for path, name in rows
    )
    (folder / "train.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    try:
        listed = read_split(folder, "train", train.classes)
    except UserError as error:
        message = str(error)
        assert printable(message, len(message)) == message
        return
    found = [(listed.path(i), class_name(listed.class_names(i)[0])) for i in range(len(listed))]
    assert found == rows


def check_scores(file: Path, train) -> None:
    arrays = {
        "paths": np.array([train.name(i) for i in range(len(train))]),
        "class_names": np.array(train.classes),
    }
    np.savez(file, allow_pickle=False, **arrays)
    with np.load(file, allow_pickle=False) as content:
        assert tuple(content["class_names"].tolist()) == train.classes
        assert content["paths"].tolist() == arrays["paths"].tolist()


def check_in_new_folder(table: dict[str, str]) -> bool:
    # The chart of validate, and waiting for the disk, take longer than everything else.
    no_chart, no_waiting = patch.object(tools, "_histogram", return_value=b""), patch.object(os, "fsync")
    with tempfile.TemporaryDirectory() as folder, no_chart, no_waiting:
        return check(table, Path(folder))


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(TABLES)
def test_a_few_tables_of_names_are_read_back_as_they_are_written(table):
    check_in_new_folder(table)


@pytest.mark.slow
@settings(
    max_examples=int(os.environ.get("MMACTION_LITE_TABLES", "60")),
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(TABLES)
def test_tables_of_names_are_read_back_as_they_are_written(table):
    check_in_new_folder(table)


@pytest.mark.parametrize(
    "folders",
    [
        [str(number) for number in range(12)],
        [f"{number:02}" for number in range(1, 13)],
        ["1", "01", "run"],
        ["-1", "0", "1"],
        ["1.0", "2", "½"],
        ["#1", "# comment", "#"],
        ["a, b", 'say "hi"', "it's", "50 %", "verb: open"],
        ["\u202eabc", "\u200fשלום", "拍手", "a\u00a0b"],
        ["10", "9", "jump"],
    ],
)
def test_row_01_names_of_class_folders_survive_every_tool(folders):
    assert check_in_new_folder({name: f"clip {number}" for number, name in enumerate(folders)})
