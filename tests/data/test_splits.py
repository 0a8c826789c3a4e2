import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from mmaction_lite.data.annotations.splits import read_list, read_split, write_table
from mmaction_lite.errors import UserError
from mmaction_lite.tasks.multi_label import MultiLabel


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def listed(samples):
    return [(samples.paths[i], samples.classes[samples.labels[i]]) for i in range(len(samples))]


def test_class_folders_with_splits(tmp_path):
    touch(
        tmp_path,
        "train/run/b.mp4",
        "train/run/a.AVI",
        "train/jump/c/00001.jpg",
        "val/run/x.webm",
        "train/run/n.txt",
    )
    train = read_split(tmp_path, "train")
    assert listed(train) == [("jump/c", "jump"), ("run/a.AVI", "run"), ("run/b.mp4", "run")]
    assert train.path(1) == tmp_path / "train" / "run" / "a.AVI"
    val = read_split(tmp_path, "val", train.classes)
    assert val.classes == ("jump", "run")  # a class missing from val keeps its index
    assert val.labels.tolist() == [1]
    assert listed(read_split(tmp_path, "test", train.classes)) == listed(val)


def test_class_folders_without_splits_hold_out_a_fifth_of_every_class(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in ("a", "b") for i in range(10)), "c/0.mp4", "c/1.mp4")
    train, val = (listed(read_split(tmp_path, split)) for split in ("train", "val"))
    assert sorted(train + val) == sorted(
        [(f"{name}/{i}.mp4", name) for name in ("a", "b") for i in range(10)]
        + [("c/0.mp4", "c"), ("c/1.mp4", "c")]
    )
    assert [sum(name == wanted for _, name in val) for wanted in "abc"] == [2, 2, 1]
    assert "every fifth" in read_split(tmp_path, "val").source


def test_list_files_take_numbers_names_spaces_and_quotes(tmp_path):
    (tmp_path / "train.txt").write_text('# a comment\nmy clips/a 1.mp4 1\n\n"b  2.mp4" 0\n')
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("my clips/a 1.mp4", "1"), ("b  2.mp4", "0")]
    (tmp_path / "classes.txt").write_text("run\njump\n")
    assert listed(read_split(tmp_path, "train")) == [("my clips/a 1.mp4", "jump"), ("b  2.mp4", "run")]
    (tmp_path / "val.txt").write_text("a.mp4 run\nb.mp4 jump\n")
    assert read_split(tmp_path, "val", ("run", "jump")).labels.tolist() == [0, 1]


def test_tables_with_a_header(tmp_path):
    (tmp_path / "train.csv").write_text('label,path,note\nbrush hair,"a, b.mp4",x\njump,my clips/c.mp4,\n')
    assert listed(read_split(tmp_path, "train")) == [("a, b.mp4", "brush hair"), ("my clips/c.mp4", "jump")]
    (tmp_path / "val.tsv").write_text("path\tlabel\nd.mp4\tjump\n")
    assert read_split(tmp_path, "val", ("brush hair", "jump")).labels.tolist() == [1]
    (tmp_path / "train.txt").write_text('"a.mp4" brush hair\n')
    assert listed(read_split(tmp_path, "train")) == [("a.mp4", "brush hair")]


def test_numbers_mean_the_names_of_classes_txt(tmp_path):
    """Also when the classes are those of weights that have them in another order."""
    (tmp_path / "classes.txt").write_text("up\ndown\n")
    (tmp_path / "val.txt").write_text("a.mp4 0\nb.mp4 1\n")
    assert read_split(tmp_path, "val", ("down", "up")).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match=r"val\.txt:1: class 'up' is not among the 2 known classes"):
        read_split(tmp_path, "val", ("run", "jump"))


def test_list_of_frame_folders(tmp_path):
    touch(tmp_path, "clips/a b/00001.jpg", "clips/c/00001.jpg")
    (tmp_path / "train.txt").write_text("clips/a b 64 0\nclips/c 12 1\n")
    assert listed(read_split(tmp_path, "train")) == [("clips/a b", "0"), ("clips/c", "1")]


def test_table_is_packed_and_survives_pickling(tmp_path):
    touch(tmp_path, *(f"train/é {i % 3}/動画 {i}.mp4" for i in range(30)))
    samples = read_split(tmp_path, "train")
    again = pickle.loads(pickle.dumps(samples))
    assert listed(again) == listed(samples)
    assert samples.paths[len(samples) - 1] == "é 2/動画 8.mp4"
    assert samples.counts().tolist() == [10, 10, 10]
    assert isinstance(samples.paths.bytes, np.ndarray)


@pytest.mark.parametrize(
    ("files", "classes", "message"),
    [
        ({}, None, "found no clips; expected <class>/"),
        ({"train.txt": ""}, None, "train.txt: has no samples"),
        ({"train.txt": "only-a-path\n"}, None, "train.txt:1: 'only-a-path' has no label"),
        (
            {"train.txt": "a.mp4 0\nb.mp4 7\n", "classes.txt": "x\ny\n"},
            None,
            r"train.txt:2: label 7 is out of range",
        ),
        (
            {"train.txt": "a.mp4 run\nb.mp4 jmup\n"},
            ("run", "jump"),
            r"train.txt:2: class 'jmup' .* nearest: jump",
        ),
        ({"train.txt": '"a.mp4 0\n'}, None, "train.txt:1: .*No closing quotation"),
        ({"val.txt": "a.mp4 0\n"}, None, "has no train split; add"),
        (
            {"train.csv": "file,label\na.mp4,run\n"},
            None,
            r"train.csv:1: the header names \['file', 'label'\]",
        ),
        ({"train.csv": "path,label\na.mp4,\n"}, None, r"train.csv:2: lacks a path or a label"),
        ({"train.txt": "a.mp4 99999999999999999999\n"}, None, r"train.txt:1: label 9+ is out of range"),
        ({"train/swim/a.mp4": ""}, ("run",), "swim: class 'swim' is not among the 1 known classes"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, files, classes, message):
    for name, text in files.items():
        touch(tmp_path, name)
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_split(tmp_path, "train", classes)
    assert "\n" not in str(caught.value)


def test_nothing_to_hold_out_is_said(tmp_path):
    touch(tmp_path, "run/a.mp4", "jump/b.mp4")
    with pytest.raises(UserError, match="no class has two clips, so none can be held out"):
        read_split(tmp_path, "val")


def test_missing_data_is_said(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        read_split(tmp_path / "nowhere", "train")
    (tmp_path / "video.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not a UTF-8 text file"):
        read_split(tmp_path / "video.txt", "train")


def test_a_run_of_the_frames_in_a_folder(tmp_path):
    for number in range(8):
        touch(tmp_path, f"clips/a/{number:05}.jpg")
    (tmp_path / "train.txt").write_text("clips/a 0 3 0\nclips/a 5 3 1\n")
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("clips/a", "0"), ("clips/a", "1")]
    assert samples.segment(1) == (5, 8, True)
    assert samples.name(1) == f"{tmp_path}/clips/a#frames=5,8"
    assert samples.place(1) == f"{tmp_path}/train.txt:2"


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
        ("train.jsonl", '{"path": "a.mp4"}\n', r"train\.jsonl:1: .*it lacks label"),
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


def test_a_quoted_folder_of_frames_keeps_its_count(tmp_path):
    (tmp_path / "my frames").mkdir()
    (tmp_path / "train.txt").write_text('"my frames" 12 1\n"my frames" 10 0\n')
    samples = read_split(tmp_path, "train")
    assert samples.label_columns == ("label",)
    assert samples.segments is not None
    assert samples.segments.tolist() == [[0, 12], [0, 10]]


def test_labels_that_count_from_1_are_found_out(tmp_path):
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    (tmp_path / "train.txt").write_text("a.mp4 1\nb.mp4 3\nc.mp4 2\n")
    with pytest.raises(UserError, match=r"train\.txt:2: labels run from 1 to 3 .* seem to count from 1"):
        read_split(tmp_path, "train")
    (tmp_path / "train.txt").write_text("a.mp4 2\nb.mp4 1\n")  # class 0 merely has no clips
    assert read_split(tmp_path, "train").counts().tolist() == [0, 1, 1]


def test_class_names_of_several_words_after_a_video(tmp_path):
    (tmp_path / "train.txt").write_text("my clips/a 1.mp4 brush hair\nb.avi jump\n")
    assert listed(read_split(tmp_path, "train")) == [("my clips/a 1.mp4", "brush hair"), ("b.avi", "jump")]


@pytest.mark.slow
def test_a_list_as_long_as_kinetics_is_read_quickly_and_kept_small(tmp_path):
    lines = (f"train/class {i % 400}/video_{i:011}_000001_000011.mp4 {i % 400}\n" for i in range(240_000))
    (tmp_path / "train.txt").write_text("".join(lines))
    code = """
import sys, time
from pathlib import Path
import torch
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.device import peak_memory
cpu = torch.device("cpu")
before, start = peak_memory(cpu), time.process_time()
samples = read_split(Path(sys.argv[1]), "train")
seconds = time.process_time() - start
grown = peak_memory(cpu) - before
assert len(samples) == 240_000
print(seconds, grown, (samples.paths.bytes.nbytes + samples.paths.ends.nbytes) / 2**20)
"""
    seconds, peak, kept = map(
        float, subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True).split()
    )
    print(f"240,000 rows: {seconds:.1f} s of processor time, {peak:.0f} MiB at most, {kept:.0f} MiB of paths")
    assert seconds < 3
    assert 0 < peak < 150
    assert kept < 20
