import json

import pytest

from mmaction_lite.data.annotations.columns import check_columns, column_name
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError
from tests.data.test_splits import listed


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("wieght", "the column 'wieght' is unknown; nearest: weight"),
        ("start", "the column 'start' is unknown; nearest: start_"),
        ("clip end", "the column 'clip end' is unknown"),
        ("stop_frame", "the column 'stop_frame' is unknown"),
        ("end_secs", "the column 'end_secs' is unknown"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_columns_that_resemble_known_ones_are_an_error(tmp_path, column, message, suffix):
    row = {"path": "a.mp4", "label": "run", column: "1"}
    text = f"path,label,{column}\na.mp4,run,1\n" if suffix == ".csv" else json.dumps(row)
    (tmp_path / f"train{suffix}").write_text(text)
    with pytest.raises(UserError, match=message):
        read_split(tmp_path, "train")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_other_columns_are_named_once(tmp_path, suffix):
    columns = {"path": ["a.mp4", "b.mp4"], "label": ["run", "jump"], "height": [1, 2], "fps": [25, 30]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    file = tmp_path / f"train{suffix}"
    if suffix == ".csv":
        file.write_text("path,label,height,fps\na.mp4,run,1,25\nb.mp4,jump,2,30\n")
    elif suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), file)
    (note,) = read_split(tmp_path, "train").notes
    assert "2 columns are ignored: height, fps" in note


def test_capitals_in_the_header_do_not_count(tmp_path):
    (tmp_path / "train.csv").write_text(" Path ,LABEL,Weight\na.mp4,run,2\nb.mp4,jump,1\n")
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("a.mp4", "run"), ("b.mp4", "jump")]
    assert samples.weights is not None
    assert column_name(" Path ") == "path"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,label,Label", "the column 'label' occurs twice"),
        ("path,label,start_seconds,end_frame", "expected start and end in the same unit"),
        ("path,lable", "expected the columns path and label"),
        (
            ",".join(["path", "label", *(f"c{i}" for i in range(2000))]),
            "has 2002 columns; expected at most 1000",
        ),
    ],
)
def test_invalid_headers(header, message):
    with pytest.raises(UserError, match=message):
        list(check_columns(header.lower().split(","), "train.csv:1"))


def test_start_and_stop_do_not_matter_beside_a_segment():
    columns = ["path", "label", "start_frame", "end_frame", "start_timestamp", "stop_timestamp"]
    assert list(check_columns(columns, "train.csv:1")) == [
        "train.csv:1: 2 columns are ignored: start_timestamp, stop_timestamp"
    ]
