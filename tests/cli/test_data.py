"""Commands that make, check and rewrite data sets."""

import json

import pytest
from PIL import Image

from mmaction_lite.cli import data as data_module
from mmaction_lite.cli.data import app, generate_scenes_like_kinetics
from mmaction_lite.data.annotations.splits import read_split
from tests import barcode


def test_validate_lists_what_is_broken(run, tiny, tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(tiny / split)
    (tmp_path / "test" / "up").mkdir(parents=True)
    (tmp_path / "test" / "up" / "broken.mp4").write_bytes(b"nothing")
    code, output, error = run("data", "validate", tmp_path)
    assert code == 1
    assert f"train: 12 videos of {tmp_path}/train, 0 unreadable; 2 classes of 6 videos each" in output
    assert f"test: 1 video of {tmp_path}/test, 1 unreadable" in output
    assert "sizes 64x48 (12), fps 25 (12)" in output
    assert "broken.mp4" in error


def test_json_of_a_check_is_one_object(run, tiny):
    code, output, _ = run("data", "validate", tiny, "--json")
    assert code == 0
    report = json.loads(output)
    assert report["splits"]["train"]["videos"] == 12
    assert report["faults"] == []


def test_prepared_data_are_a_data_set(run, tiny, tmp_path):
    out = tmp_path / "out"
    code, output, error = run(
        "data", "prepare", tiny, out, "--short-side", "24", "--frames", "--workers", "0"
    )
    assert code == 0, error
    assert output == f"{out}: a dataset for --data, 0 unreadable videos omitted\n"
    assert len(read_split(out, "train")) == 12


def test_browse_writes_a_picture(run, tiny, tmp_path):
    out = tmp_path / "clips.png"
    recipe = "tsm_r10_1x1x8_12e_motions_rgb"
    code, output, error = run(
        "data", "browse", "--data", tiny, "--recipe", recipe, "--clips", "3", "--out", out
    )
    assert (code, output) == (0, f"{out}: 3 views\n"), error
    with Image.open(out) as sheet:
        assert sheet.size == (8 * 56, 3 * (42 + 14))


def test_scenes_are_written_with_a_progress_bar(tmp_path, monkeypatch):
    calls = []

    def generate(*arguments):
        calls.append(arguments)
        return iter([None] * 3)

    monkeypatch.setattr("mmaction_lite.data.generated.scenes.generate_scenes", generate)
    generate_scenes_like_kinetics(tmp_path, 3, 10)
    ((out, clips, keyframe_every, workers),) = calls
    assert (out, clips, keyframe_every) == (tmp_path, 3, 10)
    assert workers >= 1


@pytest.mark.parametrize("frames", [False, True])
def test_generate_writes_videos_or_frames(run, tmp_path, monkeypatch, frames):
    calls = []
    monkeypatch.setattr("mmaction_lite.demo.generate_motions", lambda *arguments: calls.append(arguments[:2]))
    code, output, _ = run("data", "generate", tmp_path / "motions", *["--frames"] * frames)
    assert code == 0
    assert calls == [(tmp_path / "motions", "frames" if frames else "video")]
    assert "train, val and test" in output
    assert {command.callback for command in app.registered_commands} >= {data_module.generate}


@pytest.mark.parametrize("option", [("--frames",), ("--scenes", "3"), ("--keyframe-every", "5")])
def test_long_videos_have_one_form(run, tmp_path, option):
    code, _, error = run("data", "generate", tmp_path / "long", "--long", *option)
    assert code == 2
    assert "omit --frames, --scenes and --keyframe-every" in error
    assert not (tmp_path / "long").exists()


def test_windows_of_long_videos(run, tmp_path):
    barcode.write(tmp_path / "a.mp4", range(120), options={"preset": "ultrafast"})
    data = tmp_path / "long"
    data.mkdir()
    for split in ("train", "val"):
        (data / f"{split}.csv").write_text(
            "path,label,start_seconds,end_seconds\n../a.mp4,up,1.2,3\n../missing.mp4,up,1,2\n"
        )
    options = ("--window", "1", "--stride", "0.5", "--background", "nothing")
    code, output, error = run("data", "windows", data, tmp_path / "out", *options)
    assert code == 0
    assert error.count("missing.mp4") == 2
    assert output.splitlines()[0] == "train: 4 windows of 2 classes"
    assert read_split(tmp_path / "out", "val").classes == ("up", "nothing")
