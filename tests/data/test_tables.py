import json

import numpy as np
import pytest

from mmaction_lite.data.annotations.lists import read_list
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.annotations.tables import read_table, write_table
from mmaction_lite.errors import UserError
from mmaction_lite.tasks.multi_label import MultiLabel
from tests.data.test_splits import listed


def test_tables_with_a_header(tmp_path):
    (tmp_path / "train.csv").write_text('label,path,note\nbrush hair,"a, b.mp4",x\njump,my clips/c.mp4,\n')
    assert listed(read_split(tmp_path, "train")) == [("a, b.mp4", "brush hair"), ("my clips/c.mp4", "jump")]
    (tmp_path / "val.tsv").write_text("path\tlabel\nd.mp4\tjump\n")
    assert read_split(tmp_path, "val", ("brush hair", "jump")).labels.tolist() == [1]
    (tmp_path / "train.txt").write_text('"a.mp4" brush hair\n')
    assert listed(read_split(tmp_path, "train")) == [("a.mp4", "brush hair")]


SEGMENTS = [("a.mp4", "run", 1.5, 3.0), ("a.mp4", "jump", 3.0, None), ("b c.mp4", "run", None, 2.0)]


def write_parts(file):
    names = ("path", "label", "start_seconds", "end_seconds")
    if file.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = dict(zip(names, map(list, zip(*SEGMENTS, strict=True)), strict=True))
        parquet.write_table(pyarrow.table(columns), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in SEGMENTS))
    else:
        mark = "\t" if file.suffix == ".tsv" else ","
        rows = [names, *(["" if value is None else value for value in row] for row in SEGMENTS)]
        file.write_text("".join(mark.join(map(str, row)) + "\n" for row in rows))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_parts_of_long_videos_in_every_kind_of_table(tmp_path, suffix):
    write_parts(tmp_path / f"train{suffix}")
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [(path, label) for path, label, _, _ in SEGMENTS]
    assert samples.segments is not None
    assert samples.segments.tolist() == [[1.5, 3.0], [3.0, np.inf], [0.0, 2.0]]
    assert samples.name(0).endswith("a.mp4#t=1.5,3")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "train.csv",
            "path,label,start_seconds\na.mp4,x,late\n",
            r"train\.csv:2: .*'late'",
        ),
        (
            "train.csv",
            "path,label,start_seconds,end_seconds\na.mp4,x,5,5\n",
            r"train\.csv:2: the part from 5 to 5",
        ),
        ("train.jsonl", '{"path": "a.mp4", "label": "x"}\n{"path": \n', r"train\.jsonl:2: is not JSON"),
        ("train.jsonl", "[1]\n", r"train\.jsonl:1: .* is not an object"),
        ("train.jsonl", '{"path": "a.mp4"}\n', r"train\.jsonl:1: .*expected also label"),
        ("train.jsonl", '{"path": "a.mp4", "label": {"x": 1}}\n', r"train\.jsonl:1: .* expected class names"),
        ("train.jsonl", '{"path": "a.mp4", "labels": [1.5]}\n', r"train\.jsonl:1: .* expected class names"),
        ("train.csv", "path,label,weight\na.mp4,x,1\nb.mp4,x,-1\n", r"train\.csv:3: the weight is '-1'"),
        ("train.csv", "path,labels\na.mp4,\nb.mp4,\n", r"train\.csv: no clip has a class"),
        ("train.txt", "a.mp4 0 4\nb.mp4 900000\n", r"train\.txt:2: label 900000 is out of range"),
        ("train.parquet", "text", r"train\.parquet: is not a Parquet file"),
    ],
)
def test_mistakes_in_tables_name_file_and_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_split(tmp_path, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", 'a.mp4 1 2\nb c.mp4 0\n"d 1.mp4" 2 0\n'),
        ("train.csv", "path,labels,weight\na.mp4,1|2,\nb c.mp4,0,3\nd 1.mp4,2|0,0.5\n"),
        ("train.tsv", "path\tlabels\na.mp4\ty|z\nb c.mp4\tx\nd 1.mp4\tz | x\n"),
        (
            "train.jsonl",
            '{"path": "a.mp4", "labels": ["y", "z"]}\n{"path": "b c.mp4", "label": ["x"]}\n'
            '{"path": "d 1.mp4", "labels": ["z", "x"]}\n',
        ),
    ],
)
def test_clips_of_several_classes(tmp_path, name, text):
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    (tmp_path / name).write_text(text)
    samples = read_split(tmp_path, "train")
    assert samples.label_columns == ("labels",)
    assert len(samples) == 3
    assert [samples.class_names(i) for i in range(3)] == [["y", "z"], ["x"], ["z", "x"]]
    targets = MultiLabel().targets(samples.labels, samples.label_counts(), 3)
    assert targets.astype(int).tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 1]]
    assert MultiLabel().target(samples.labels_of(2), 3).tolist() == [1, 0, 1]
    assert samples.counts().tolist() == [2, 1, 2]
    if "weight" in text:
        assert samples.weights is not None
        assert samples.weights.tolist() == [1, 3, 0.5]
    write_table(tmp_path / "again.csv", samples, [2, 0], ["d.mp4", "a.mp4"])
    again = read_list(tmp_path / "again.csv")
    assert [again.class_names(i) for i in range(2)] == [["z", "x"], ["y", "z"]]
    assert (again.weights is None) == (samples.weights is None)


def test_a_clip_may_have_no_class_at_all(tmp_path):
    (tmp_path / "train.csv").write_text("path,labels\na.mp4,\nb.mp4,open|close\n")
    samples = read_split(tmp_path, "train")
    assert samples.classes == ("close", "open")
    targets = MultiLabel().targets(samples.labels, samples.label_counts(), 2)
    assert targets.tolist() == [[False, False], [True, True]]


VERBS_AND_NOUNS = [("a.mp4", "open", "door"), ("b.mp4", "close", "door"), ("c.mp4", "open", "cut")]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_columns_verb_and_noun(tmp_path, suffix):
    file, names = tmp_path / f"train{suffix}", ("path", "verb", "noun")
    if suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        columns = dict(zip(names, map(list, zip(*VERBS_AND_NOUNS, strict=True)), strict=True))
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), file)
    elif suffix == ".jsonl":
        rows = (json.dumps(dict(zip(names, row, strict=True))) for row in VERBS_AND_NOUNS)
        file.write_text("\n".join(rows))
    else:
        mark = "\t" if suffix == ".tsv" else ","
        file.write_text("".join(mark.join(row) + "\n" for row in (names, *VERBS_AND_NOUNS)))
    samples = read_table(file)
    assert samples.label_columns == ("verb", "noun")
    assert samples.classes == ("verb: close", "verb: open", "noun: cut", "noun: door")
    assert samples.label_ends is None
    assert [samples.labels_of(i).tolist() for i in range(3)] == [[1, 3], [0, 3], [1, 2]]
    write_table(tmp_path / "again.csv", samples, [2, 0], ["c.mp4", "a.mp4"])
    assert (tmp_path / "again.csv").read_text() == "path,verb,noun\nc.mp4,open,cut\na.mp4,open,door\n"
    again = read_table(tmp_path / "again.csv", samples.classes)
    assert again.labels.tolist() == [1, 2, 1, 3]


def test_numbers_of_verbs_and_nouns_refer_to_classes_txt(tmp_path):
    (tmp_path / "train.csv").write_text("path,verb,noun\na.mp4,1,0\nb.mp4,0,1\n")
    assert read_table(tmp_path / "train.csv").classes == ("verb: 0", "verb: 1", "noun: 0", "noun: 1")
    (tmp_path / "classes.txt").write_text("verb: take\nverb: cut\nnoun: cup\nnoun: knife\n")
    samples = read_table(tmp_path / "train.csv")
    assert [samples.class_names(i) for i in range(2)] == [
        ["verb: cut", "noun: cup"],
        ["verb: take", "noun: knife"],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,verb\na.mp4,open\n", r"train\.csv:1: the header names"),
        (
            "path,verb,noun\na.mp4,open,\n",
            r"train\.csv:2: lacks a path or a label: .*; expected values of path, verb, noun",
        ),
        ("path,verb,noun\na.mp4,open,dor\n", r"train\.csv:2: class 'dor' .* nearest: door"),
    ],
)
def test_mistakes_in_verbs_and_nouns_name_file_and_line(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "train.csv", ("verb: open", "noun: door"))


def test_rows_of_a_jsonl_file_have_the_same_label_columns(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"path": "a.mp4", "verb": "x", "noun": "y"}\n{"path": "b.mp4", "label": "x"}\n'
    )
    with pytest.raises(UserError, match=r"a\.jsonl:2: .*use the same columns in all rows"):
        read_table(tmp_path / "a.jsonl")
