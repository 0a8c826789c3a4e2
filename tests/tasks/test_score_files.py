import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.tasks import score_files as scores
from mmaction_lite.tasks import score_parquet
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.named import task_named
from mmaction_lite.tasks.score_files import Scores, check_scores_out, read_scores, write_scores
from mmaction_lite.tasks.single_label import SingleLabel
from tests.report.test_page import add_scores


def test_a_score_file_without_a_task_is_read_by_its_labels(tmp_path):
    arrays = add_scores(tmp_path / "a.npz")
    table = read_scores(tmp_path / "a.npz")
    assert table.task == SingleLabel()
    np.testing.assert_array_equal(table.scores, arrays["scores"])
    add_scores(tmp_path / "b.npz", labels=np.ones((40, 10), bool))
    assert read_scores(tmp_path / "b.npz").task == MultiLabel()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": np.array("{}")}, r"a\.npz: damaged score file"),
        ({"task": np.array('{"task": "per_frame"}')}, "there is no task 'per_frame'"),
        ({"task": np.array('{"task": "multi_label"}')}, r"do not fit labels of shape \(40,\)"),
        ({"labels": np.full(40, 0.5)}, "labels are float64; expected class indices"),
    ],
)
def test_a_task_that_does_not_fit_is_an_error(tmp_path, changed, message):
    add_scores(tmp_path / "a.npz", **changed)
    with pytest.raises(UserError, match=message):
        read_scores(tmp_path / "a.npz")


def test_logits_are_refused(tmp_path):
    for low, high in ((-3.0, 0.5), (0.0, 1.5)):
        add_scores(tmp_path / "a.npz", scores=np.linspace(low, high, 400, dtype=np.float32).reshape(40, 10))
        with pytest.raises(
            UserError, match=rf"a\.npz: scores from {low:g} to {high:g}; expected probabilities"
        ):
            read_scores(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": np.zeros((40, 10), complex)}, "scores of complex128"),
        ({"scores": np.zeros((40, 10), int)}, "scores of int64"),
        ({"labels": np.array(["a"] * 40)}, "labels of <U1"),
        ({"paths": np.array([None] * 40)}, "is not of the size"),
        ({"scores": np.zeros((4000, 1000), np.float32)}, "much larger than the file"),
        ({"task": np.array('{"task": "verb_noun", "num_verbs": 3}')}, "expected names such as"),
    ],
)
def test_a_damaged_score_file_is_one_line_before_memory_is_taken(tmp_path, monkeypatch, changed, message):
    monkeypatch.setattr(scores, "FREE_BYTES", 1 << 20)
    add_scores(tmp_path / "a.npz", **changed)
    with pytest.raises(UserError, match=rf"a\.npz: damaged score file \([^\n]*{message}"):
        read_scores(tmp_path / "a.npz")


def test_a_header_that_states_another_size_is_refused(tmp_path):
    add_scores(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["scores.npy"] = members["scores.npy"].replace(b"(40, 10)", b"(90, 90)")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="not of the size that its header states"):
        read_scores(tmp_path / "a.npz")


CLASSES = {
    "single_label": ["a", "b", "c", "d"],
    "multi_label": ["a", "b", "c", "d"],
    "verb_noun": ["verb: a", "verb: b", "noun: a", "noun: b"],
}
LABELS = {
    "single_label": np.array([0, 3, 1]),
    "multi_label": np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool),
    "verb_noun": np.array([[0, 1], [1, 1], [1, 0]]),
}


def table_of(file: Path, task: str = "single_label", **changed) -> Scores:
    scores = np.random.default_rng(0).random((3, 4), np.float32)
    scores[1] = np.nan
    values = {
        "paths": ["videos/ä b.mp4", "videos/b.mp4#t=1.5,3", "videos/b.mp4"],
        "labels": LABELS[task],
        "scores": scores,
        "class_names": CLASSES[task],
        "protocol": "1 clip × 1 crop",
        "task": task_named(task).for_classes(CLASSES[task]),
        "weights": "0123456789abcdef",
        "views": 2,
        "view_logits": np.random.default_rng(1).random((3, 2, 4), np.float32),
    }
    return Scores(file=file, **(values | changed))


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_score_file_is_read_as_it_was_written(tmp_path, task, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    for changed in ({}, {"weights": None, "views": None, "view_logits": None}):
        table = table_of(tmp_path / f"scores{suffix}", task, **changed)
        write_scores(table)  # the second time, it replaces the first file
        found = read_scores(table.file)
        for name, value in vars(table).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(vars(found)[name], value)
                assert vars(found)[name].dtype == value.dtype
            else:
                assert vars(found)[name] == value, name


def test_parquet_has_a_row_for_each_video(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_scores(table_of(tmp_path / "s.parquet", "verb_noun"))
    rows = parquet.read_table(tmp_path / "s.parquet").to_pylist()
    assert [row["video"] for row in rows] == table_of(tmp_path / "s").paths
    assert rows[0]["label"] == [0, 1]
    assert len(rows[0]["scores"]) == 4


def test_parquet_is_refused_without_pyarrow_and_for_names_that_are_not_utf_8(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
        for call in (check_scores_out, read_scores):
            with pytest.raises(UserError, match=r"pip install 'mmaction-lite\[parquet\]'.*in \.npz$"):
                call(tmp_path / "s.parquet")
    pytest.importorskip("pyarrow")
    strange = os.fsdecode(b"videos/\xff.mp4")
    with pytest.raises(UserError, match=r"a path of a video is not UTF-8; expected a name .* \.npz"):
        write_scores(table_of(tmp_path / "s.parquet", paths=[strange, "b", "c"]))
    write_scores(table_of(tmp_path / "s.npz", paths=[strange, "b", "c"]))
    assert read_scores(tmp_path / "s.npz").paths[0] == strange


def test_damaged_parquet_is_one_line(tmp_path, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    good = tmp_path / "s.parquet"
    write_scores(table_of(good))
    table = parquet.read_table(good)
    metadata = json.loads(table.schema.metadata[score_parquet.KEY])
    other = tmp_path / "other.parquet"
    cases = [
        (table.replace_schema_metadata({}), "no metadata of mmaction-lite"),
        (table.drop_columns(["label"]), "label"),
        (table.set_column(0, "video", arrow.array([1, 2, 3])), r""),
        (table.set_column(0, "video", arrow.array(["a" * 20_000, "b", "c"])), "a path of more than 10000"),
        (table.set_column(0, "video", arrow.array(["a", "b", None])), "missing values"),
        (table.set_column(2, "scores", arrow.array([[1.0], [2.0], [3.0]])), "column 'scores' of type"),
        (
            table.replace_schema_metadata({score_parquet.KEY: json.dumps(metadata | {"class_names": [1]})}),
            "metadata of another form",
        ),
    ]
    for changed, message in cases:
        parquet.write_table(changed, other)
        with pytest.raises(UserError, match=rf"other\.parquet: damaged score file \([^\n]*{message}"):
            read_scores(other)
    content = good.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 3):
        other.write_bytes(content[:cut])
        with pytest.raises(UserError, match=r"other\.parquet: damaged"):
            read_scores(other)
    monkeypatch.setattr(scores, "FREE_BYTES", -(20 * len(content)) + 10)
    with pytest.raises(UserError, match="much larger than the file"):
        read_scores(good)


def test_what_is_no_score_file_is_refused_and_kept(tmp_path):
    (tmp_path / "notes.npz").write_text("mine")
    with pytest.raises(UserError, match="exists and is not a score file"):
        write_scores(table_of(tmp_path / "notes.npz"))
    for name, message in (
        ("s.csv", r"written as \.npz or \.parquet"),
        ("gone/s.npz", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            check_scores_out(tmp_path / name)
    with pytest.raises(UserError, match=r"no such file; expected a score file"):
        read_scores(tmp_path / "gone.npz")
    with pytest.raises(UserError, match=r"is a folder; expected a score file, such as"):
        read_scores(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npz")
        with pytest.raises(UserError, match="is not a regular file"):
            read_scores(tmp_path / "pipe.npz")
