"""Checking and re-writing data sets; killed halfway, they come to the same result."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.sources.source import open_sample, open_source
from mmaction_lite.data.tools.prepare import Form, _targets, prepare
from mmaction_lite.data.tools.validate import read_splits
from mmaction_lite.errors import UserError
from tests.conftest import write_video


def plain(items, total, title):
    return items


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_prepared_videos_keep_their_frames_and_get_keyframes(tiny, tmp_path):
    assert prepare(tiny, tmp_path / "out", Form(short_side=24, keyframe_every=5), plain) == []
    before, after = read_split(tiny, "train"), read_split(tmp_path / "out", "train")
    assert after.labels.tolist() == before.labels.tolist()
    assert after.classes == before.classes
    for sample in (0, 7):
        with open_sample(before, sample) as old, open_sample(after, sample) as new:
            assert (len(new), new.size, new.fps) == (len(old), (24, 32), old.fps)
            difference = old.frames(range(16), None, (24, 32)).astype(int) - new.frames(range(16))
            assert np.abs(difference).mean() < 4
        with av.open(str(after.path(sample))) as container:
            keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
        assert [i for i, key in enumerate(keys) if key] == [0, 5, 10, 15]


def test_prepared_frames_read_like_the_videos(tiny, tmp_path):
    prepare(tiny, tmp_path / "out", Form(kind="frames", short_side=100), plain)
    samples = read_split(tmp_path / "out", "val")
    with open_sample(samples, 0) as new, open_sample(read_split(tiny, "val"), 0) as old:
        assert (len(new), new.size) == (16, old.size)
        assert np.abs(old.frames(range(16)).astype(int) - new.frames(range(16))).mean() < 6


def test_parts_stay_where_they_are(tiny, tmp_path):
    clip = next((tiny / "train" / "up").glob("*.mp4"))
    (tmp_path / "in").mkdir()
    rows = f"path,label,start_seconds,end_seconds\n{clip},x,0.2,0.4\n{clip},y,0.4,\n"
    (tmp_path / "in" / "train.csv").write_text(rows)
    prepare(tmp_path / "in", tmp_path / "out", Form(), plain)
    samples = read_split(tmp_path / "out", "train")
    assert samples.paths[0] == samples.paths[1]
    assert samples.segments is not None
    assert samples.segments.tolist() == [[0.2, 0.4], [0.4, np.inf]]


def test_a_folder_in_use_is_left_alone(tiny, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"used: is not empty; expected a new folder or an interrupted prep"):
        prepare(tiny, tmp_path / "used", Form(), plain)
    prepare(tiny, tmp_path / "out", Form(short_side=24), plain)
    with pytest.raises(UserError, match=r"out: holds .*short_side=24.*; expected .*short_side=32"):
        prepare(tiny, tmp_path / "out", Form(short_side=32), plain)


@pytest.mark.parametrize("kind", ["video", "frames"])
def test_after_a_full_disk_the_same_command_resumes(damaged, tmp_path, kind):
    """A limit on the size of files makes writing fail as a full disk does."""
    form = Form(kind=kind, crf=1, keyframe_every=1)
    prepare(damaged, tmp_path / "whole", form, plain)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    sizes = [file.stat().st_size for file in (tmp_path / "whole" / "videos").rglob("*") if file.is_file()]
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes) - 1, before[1]))
    try:
        with pytest.raises(UserError, match=r"could not be written .*the same command resumes"):
            prepare(damaged, tmp_path / "out", form, plain)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "out").rglob("*.part"))
    assert not (tmp_path / "out" / "train.csv").exists()
    faults = prepare(damaged, tmp_path / "out", form, plain)
    assert len(faults) == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("command", [["prepare", "--crf", "18"], ["validate"]])
def test_a_preparation_killed_at_any_time_resumes_to_the_same_result(damaged, tmp_path, command):
    name, *options = command
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(out):
        place = [str(out)] if name == "prepare" else ["--out", str(out)]
        arguments = ["data", name, str(damaged), *place, *options, "--workers", "2"]
        return subprocess.Popen(
            [sys.executable, "-m", "mmaction_lite", *arguments],
            start_new_session=True,
            stderr=subprocess.PIPE,
        )

    start(whole).communicate()
    for _ in range(3):
        process = start(killed)
        until = time.time() + 30
        count = len(list(killed.rglob("*.mp4"))) + lines_of(killed / "checked.jsonl")
        while time.time() < until and process.poll() is None:
            if len(list(killed.rglob("*.mp4"))) + lines_of(killed / "checked.jsonl") > count + 2:
                break
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    last = start(killed)
    _, error = last.communicate()
    assert last.returncode == (1 if name == "validate" else 0), error
    assert len(read_split(killed, "train")) == 12
    results = [{k: v for k, v in contents(out).items() if k != "checked.jsonl"} for out in (whole, killed)]
    assert results[0].keys() == results[1].keys()
    assert results[0] == results[1]


def lines_of(file):
    return len(file.read_bytes().splitlines()) if file.exists() else 0


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_result(damaged, tmp_path):
    """In a process of its own: Ray leaves threads and settings behind."""
    pytest.importorskip("ray")
    program = [sys.executable, "-m", "mmaction_lite", "data", "prepare", str(damaged)]
    for engine in ("local", "ray"):
        command = [*program, str(tmp_path / engine), "--shard", "6", "--short-side", "24", "--engine", engine]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "1 unreadable videos omitted" in done.stdout
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


NAMES = [
    "a.mp4",
    "a.avi",
    "A.mp4",
    "#b: 50%, c.mp4",
    "line\nbreak\ttab.mp4",
    "not utf-8 \udcff.mp4",
    "\u00dcbung.mp4",
    "U\u0308bung.mp4",
    f"{'n' * 251}.mp4",
    "\u00fc" * 125 + ".mp4",
    "quote's \"d.mp4",
    "star*.mp4",
    "c.tar.mp4",
    "d.tar",
    " space .mp4",
    "-option.mp4",
    "PaxHeaders.mp4",
]  # fmt: skip


@pytest.fixture(scope="module")
def odd_names(tmp_path_factory):
    """Class folders of clips of one gray value each, with the names `NAMES` in both classes."""
    root = tmp_path_factory.mktemp("odd")
    for number in range(2 * len(NAMES)):
        clip = root / ("up", "down.tar")[number % 2] / NAMES[number // 2]
        clip.parent.mkdir(exist_ok=True)
        value = 20 + 6 * number
        if clip.suffix == ".tar":
            clip.mkdir()
            for name in ("img_1.png", "flow_x_1.png"):
                Image.new("RGB", (16, 16), (value if "img" in name else 0,) * 3).save(clip / name)
            continue
        write_video(root / "clip.mp4", np.full((1, 16, 16, 3), value, np.uint8))
        (root / "clip.mp4").rename(clip)
    return root


def grays(samples):
    """The class and the gray value of every clip, in order."""
    pairs = []
    for sample in range(len(samples)):
        with open_sample(samples, sample) as source:
            pairs.append((samples.class_names(sample), round(float(source.frames([0]).mean()))))
    return sorted(pairs)


@pytest.mark.parametrize(("kind", "shard"), [("video", 0), ("video", 7), ("frames", 7)])
def test_clips_of_any_name_keep_their_class_and_their_frames(odd_names, tmp_path, kind, shard):
    """Clips with equal stems are not merged; what is written is read back."""
    assert prepare(odd_names, tmp_path / "out", Form(kind=kind, shard=shard), plain) == []
    for split in ("train", "val"):
        before, after = (grays(read_split(data, split)) for data in (odd_names, tmp_path / "out"))
        assert [label for label, _ in before] == [label for label, _ in after]
        assert np.abs(np.array([b for _, b in before]) - [a for _, a in after]).max() <= 2


def test_equal_checksums_give_different_files(odd_names, monkeypatch):
    """Of 240,000 clips that are all called clip.mp4, a few have the same checksum."""
    monkeypatch.setattr(zlib, "crc32", lambda data: 7)
    splits = read_splits(odd_names)
    targets = _targets(splits.values(), Form())
    assert len(targets) == len(set(targets.values())) == sum(map(len, splits.values()))
    assert targets == _targets(splits.values(), Form())


def test_an_interrupted_preparation_of_other_clips_is_not_resumed(tiny, tmp_path):
    """The tar files of the first call do not contain the clips that the second one lists."""
    clips = sorted((tiny / "train").rglob("*.mp4"))
    (tmp_path / "in").mkdir()
    lines = [f'"{clip}" {clip.parent.name}\n' for clip in clips]
    (tmp_path / "in" / "train.txt").write_text("".join(lines[:6]))
    form = Form(kind="frames", short_side=24, shard=3)
    prepare(tmp_path / "in", tmp_path / "out", form, plain)
    (tmp_path / "out" / "train.csv").unlink()
    (tmp_path / "in" / "train.txt").write_text("".join(lines[1:7]))
    with pytest.raises(UserError, match=r"train-00000\.tar: contains other clips than the data set"):
        prepare(tmp_path / "in", tmp_path / "out", form, plain)


@pytest.mark.parametrize("kind", ["video", "frames"])
def test_a_source_that_changes_while_it_is_read_is_not_converted(tiny, tmp_path, kind, monkeypatch):
    (tmp_path / "in").mkdir()
    for name, clip in zip("ab", sorted(tiny.rglob("*.mp4"))[:2], strict=True):
        (tmp_path / "in" / f"{name}.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "in" / "train.txt").write_text("a.mp4 x\nb.mp4 y\n")

    def open_and_append(path):
        source = open_source(path)
        if path.name == "a.mp4":
            with path.open("ab") as file:
                file.write(b"more")
        return source

    monkeypatch.setattr("mmaction_lite.data.tools.prepare.open_source", open_and_append)
    (fault,) = prepare(tmp_path / "in", tmp_path / "out", Form(kind=kind), plain)
    assert "a.mp4: was changed while it was read" in fault
    assert len(read_split(tmp_path / "out", "train")) == 1


def test_an_unexpected_fault_of_one_video_does_not_end_a_preparation(tiny, tmp_path, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError("a size of 0")

    monkeypatch.setattr("mmaction_lite.data.tools.prepare._write_video", fail)
    faults = prepare(tiny, tmp_path / "out", Form(), plain)
    assert len(faults) == 18
    assert faults[0].endswith("mp4: cannot be converted (ZeroDivisionError: a size of 0)")
