import pytest

from mmaction_lite.data.annotations import table_rows
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.annotations.table_rows import find_header, read_csv
from mmaction_lite.errors import UserError
from tests.data.test_splits import listed, touch

EXPECTED = [("a b.mp4", "run, fast"), ("c.mp4", "jump")]


@pytest.mark.parametrize(
    "text",
    [
        'path,label\na b.mp4,"run, fast"\nc.mp4,jump\n',
        "path;label\na b.mp4;run, fast\nc.mp4;jump\n",
        "path\tlabel\na b.mp4\trun, fast\nc.mp4\tjump\n",
        "sep=;\npath;label\na b.mp4;run, fast\nc.mp4;jump\n",
        '"sep=;"\n"path";"label"\n"a b.mp4";"run, fast"\n"c.mp4";"jump"\n',
        'a b.mp4,"run, fast"\nc.mp4,jump\n',
        "a b.mp4;run, fast\nc.mp4;jump\n",
        "a b.mp4\trun, fast\nc.mp4\tjump\n",
        "a b.mp4 run, fast\nc.mp4 jump\n",
        '\n\nPath,Label,,\na b.mp4,"run, fast",,\n,,,\nc.mp4,jump,,\n',
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".CSV"])
def test_public_layouts_of_csv_files(tmp_path, text, suffix):
    (tmp_path / f"train{suffix}").write_text(text)
    assert listed(read_split(tmp_path, "train")) == EXPECTED


def test_a_file_without_header_is_noted(tmp_path):
    touch(tmp_path, "clips/a/1.jpg")
    (tmp_path / "train.csv").write_text("clips/a,run\nclips/b,jump\n")
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("clips/a", "run"), ("clips/b", "jump")]
    assert "has no header; the columns are read as path and label" in samples.notes[0]


def test_unquoted_commas_are_an_error_with_the_line(tmp_path):
    (tmp_path / "train.csv").write_text("path,label\na.mp4,run\nb, c.mp4,jump\n")
    with pytest.raises(UserError, match=r"train\.csv:3: has 3 cells, and the header has 2 columns"):
        read_split(tmp_path, "train")


def test_line_breaks_inside_quotes_stay(tmp_path):
    (tmp_path / "train.csv").write_text('path,label\n"a\nb\u2028c.mp4",run\nd.mp4,jump\n')
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("a\nb\u2028c.mp4", "run"), ("d.mp4", "jump")]
    assert samples.place(1).endswith("train.csv:4")


def test_headers_are_found(tmp_path):
    header = find_header("path;label\n", tmp_path / "a.csv")
    assert header is not None
    assert (header.separator, header.names, header.line) == (";", ["path", "label"], 1)
    assert find_header("a.mp4 run\n", tmp_path / "a.csv") is None
    (tmp_path / "a.csv").write_text("path,label\n\na.mp4,run\n")
    (row,) = read_csv(tmp_path / "a.csv", [])
    assert (row.number, row.cells) == (3, {"path": "a.mp4", "label": "run"})


def test_a_long_text_that_many_parquet_rows_share_is_refused(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"path": ["x" * 100_000] * 300, "labels": [["a"]] * 300})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "train.parquet")
    assert (tmp_path / "train.parquet").stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"train\.parquet: a cell has 100000 bytes"):
        read_split(tmp_path, "train")
    monkeypatch.setattr(table_rows, "MAX_PARQUET_BYTES", 10)
    with pytest.raises(UserError, match="MiB without compression"):
        read_split(tmp_path, "train")


def test_rows_of_jsonl_files_may_lack_optional_columns(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        '{"path": "a.mp4", "label": "x"}\n{"path": "b.mp4", "label": "y", "start_frame": 5, "weight": 2}\n'
    )
    samples = read_split(tmp_path, "train")
    assert samples.segments is not None
    assert samples.segments.tolist() == [[0, float("inf")], [5, float("inf")]]
    assert samples.weights is not None
    assert samples.weights.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"path": 5, "label": "x"}', "path is 5; expected text"),
        ('{"path": "a.mp4", "label": true}', "label is True; expected class names or numbers"),
        ('{"path": "a.mp4", "label": 1.0}', "label is 1.0; expected class names or numbers"),
        ('{"path": "a.mp4", "label": null}', "lacks a path or a label"),
        ('{"path": "a\\u0000b.mp4", "label": "x"}', "the path contains the character NUL"),
        ('{"path": "\\ud800", "label": "x"}', "contains bytes that are not UTF-8"),
        ('{"path": " ", "label": "x"}', "the path is empty"),
        ('{"path": "a.mp4", "label": "x", "start_seconds": NaN}', "expected numbers"),
        ('{"path": "a.mp4", "label": "x", "start_seconds": [1]}', "expected numbers"),
        ('{"path": "a.mp4", "label": "x", "start_seconds": Infinity}', "is empty or begins before 0"),
        ('{"path": "a.mp4", "label": "x", "end_frame": 1.5}', "expected integers"),
        ('{"path": "a.mp4", "label": "x", "end_frame": 1e30}', "expected integers"),
        ('{"path": "a.mp4", "label": "x", "weight": "NaN"}', "the weight is 'NaN'"),
        ('{"path": "a.mp4", "label": "x", "weight": 0}', "the weights add up to 0"),
        ('{"path": "%s", "label": "x"}' % ("x" * 5000), "has 5000 characters"),
    ],
)
def test_values_of_other_types_are_one_line(tmp_path, row, message):
    (tmp_path / "train.jsonl").write_text(row)
    with pytest.raises(UserError, match=message):
        read_split(tmp_path, "train")


@pytest.mark.parametrize("second", ["label", "Label", " label"])
def test_a_column_that_a_jsonl_row_has_twice_is_an_error(tmp_path, second):
    rows = ['{"path": "a.mp4", "label": "run"}', f'{{"path": "b.mp4", "label": "run", "{second}": "jump"}}']
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"train\.jsonl:2: .*'label' occurs twice"):
        read_split(tmp_path, "train")


def test_a_column_that_a_parquet_file_has_twice_is_an_error(tmp_path):
    columns = [["a.mp4", "b.mp4"], ["run", "jump"], ["jump", "run"]]
    table = pytest.importorskip("pyarrow").table(columns, names=["path", "label", "label"])
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet: the column 'label' occurs twice"):
        read_split(tmp_path, "train")
