import json

import pytest

from mmaction_lite.cli.explain import distinct_stems
from mmaction_lite.cli.explain import explain as command

pytestmark = pytest.mark.usefixtures("one_thread")


def test_pictures_and_one_line_per_video(run, trained, tiny, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"")
    clips = [tiny / "val" / "up" / "12.mp4", tmp_path / "broken.mp4", tiny / "val" / "down" / "13.mp4"]
    out = tmp_path / "out"
    code, output, error = run("explain", trained, *clips, "--class", "up", "--out", out, "--maps", "--video")
    assert code == 2
    assert "broken.mp4" in error
    *lines, protocol = output.splitlines()
    assert [line.partition(":")[0] for line in lines] == [str(clips[0]), str(clips[2])]
    assert lines[0].endswith(f": {out / '12.up.png'}")
    assert protocol.startswith("1x1x8 frames: 1 clip × 1 crop (CenterCrop 42x56 of short side 48")
    names = {f"{number}.up.{suffix}" for number in (12, 13) for suffix in ("png", "mp4", "npz")}
    assert {path.name for path in out.iterdir()} == names | {".written.json"}


def test_json_and_foreign_files(run, trained, tiny, tmp_path):
    clip = tiny / "val" / "up" / "12.mp4"
    arguments = ("explain", trained, clip, "--out", tmp_path, "--class", "up", "--layer", "backbone.layer2")
    code, output, _ = run(*arguments, "--fill", "none", "--json")
    assert code == 0
    ((video,),) = json.loads(output).values()
    (found,) = video["explanations"]
    assert found["files"] == [str(tmp_path / "12.up.png")]
    assert found["layers"] == ["backbone.layer2"]
    assert found["drops"] is None
    assert found["protocol"].startswith("1x1x8 frames")
    (tmp_path / "12.up.png").write_bytes(b"mine")
    code, _, error = run(*arguments)
    assert code == 2
    assert "was changed since it was written" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--class", "pu"), "the model has no class 'pu'"),
        (("--layer", "backbone.layer9"), "Recognizer has no layer 'backbone.layer9'"),
        (("--method", "lime"), "gradcam"),
        (("--clips", "3"), "clips is 3; expected 1"),
    ],
)
def test_wrong_options(run, trained, tiny, tmp_path, options, message):
    clip = tiny / "val" / "up" / "12.mp4"
    code, _, error = run("explain", trained, clip, "--out", tmp_path / "out", *options)
    assert code == 2
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_videos_of_equal_names_have_different_files(tmp_path):
    paths = [tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.avi", tmp_path / "y.mp4"]
    assert distinct_stems(paths) == ["x", "x-2", "y"]
    assert (command.__doc__ or "").endswith(".")
