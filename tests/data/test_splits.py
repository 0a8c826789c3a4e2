import shutil
import subprocess
import sys

import pytest

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError


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


def test_numbers_mean_the_names_of_classes_txt(tmp_path):
    """Also when the classes are those of weights that have them in another order."""
    (tmp_path / "classes.txt").write_text("up\ndown\n")
    (tmp_path / "val.txt").write_text("a.mp4 0\nb.mp4 1\n")
    assert read_split(tmp_path, "val", ("down", "up")).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match=r"val\.txt:1: class 'up' is not among the 2 known classes"):
        read_split(tmp_path, "val", ("run", "jump"))


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


def test_no_clip_to_hold_out_is_an_error(tmp_path):
    touch(tmp_path, "run/a.mp4", "jump/b.mp4")
    with pytest.raises(UserError, match="no class has two clips, so none can be held out"):
        read_split(tmp_path, "val")


def test_missing_data_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        read_split(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match=r"cannot be read|no such file"):
        read_split(tmp_path / ("n" * 300), "train")
    (tmp_path / "video.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not a UTF-8 text file"):
        read_split(tmp_path / "video.txt", "train")


def test_labels_that_count_from_1_are_an_error(tmp_path):
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    (tmp_path / "train.txt").write_text("a.mp4 1\nb.mp4 3\nc.mp4 2\n")
    with pytest.raises(UserError, match=r"train\.txt:2: labels run from 1 to 3 .* seem to count from 1"):
        read_split(tmp_path, "train")
    (tmp_path / "train.txt").write_text("a.mp4 2\nb.mp4 1\n")  # class 0 merely has no clips
    assert read_split(tmp_path, "train").counts().tolist() == [0, 1, 1]


@pytest.mark.parametrize("names", [("Train", "Val"), ("TRAIN", "Validation"), ("Training", "Testing")])
def test_names_of_splits_may_have_capitals(tmp_path, names):
    touch(tmp_path, f"{names[0]}/run/a.mp4", f"{names[1]}/run/b.mp4")
    (tmp_path / "lists").mkdir()
    for name in names:
        (tmp_path / "lists" / f"{name}.TXT").write_text(f"{name}.mp4 run\n")
    assert read_split(tmp_path, "train").root == tmp_path / names[0]
    assert read_split(tmp_path, "test").root == tmp_path / names[1]
    assert read_split(tmp_path / "lists", "train").paths[0] == f"{names[0]}.mp4"
    assert read_split(tmp_path / "lists", "test").paths[0] == f"{names[1]}.mp4"


def test_a_class_may_be_named_train_with_a_capital(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in ("Train", "Plane") for i in range(3)))
    assert read_split(tmp_path, "train").classes == ("Plane", "Train")


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


def test_a_second_list_or_folder_of_a_split_is_noted(tmp_path):
    (tmp_path / "train.txt").write_text("a.mp4 run\nb.mp4 walk\n")
    assert read_split(tmp_path, "train").notes == ()
    (tmp_path / "train.csv").write_text("path,label\nc.mp4,run\n")
    (note,) = read_split(tmp_path, "train").notes
    assert note == f"{tmp_path}: train.txt is read, and not train.csv, which names the same split"


def test_a_folder_of_a_split_with_a_capital_beside_another_is_noted(tmp_path):
    for folder in ("train/run", "Train/run"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.mp4").touch()
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("the file system does not distinguish capitals")
    (note,) = read_split(tmp_path, "train").notes
    assert "train is read, and not Train" in note


def test_a_split_under_two_names_is_noted(tiny, tmp_path):
    for name in ("train", "val"):
        shutil.copytree(tiny / name, tmp_path / name)
    assert read_split(tmp_path, "val").notes == ()
    shutil.copytree(tiny / "val", tmp_path / "validation")
    (tmp_path / "valid.txt").write_text("val/up/12.mp4 up\n")
    text = f"{tmp_path}: val is read, and not validation, valid.txt, which names the same split"
    for split in ("val", "test"):
        assert read_split(tmp_path, split).notes == (text,)
    (tmp_path / "val.txt").write_text("validation/up/12.mp4 up\n")
    (note,) = read_split(tmp_path, "val", ["down", "up"]).notes  # the folders may hold the videos of the list
    assert note == f"{tmp_path}: val.txt is read, and not valid.txt, which names the same split"
    assert read_split(tmp_path, "train").notes == ()
