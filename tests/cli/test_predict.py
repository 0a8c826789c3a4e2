import pytest

from mmaction_lite.cli import predict as command

pytestmark = pytest.mark.usefixtures("one_thread")


def test_predict_continues_after_a_broken_video(run, trained, tiny, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"")
    clip = tiny / "val" / "up" / "12.mp4"
    code, output, error = run("predict", trained, tmp_path / "broken.mp4", clip)
    assert code == 2
    assert output.startswith(f"{clip}: ")
    assert output.splitlines()[-1].startswith(
        "1x1x8 frames: 1 clip × 1 crop (CenterCrop 42x56 of short side 48"
    )
    assert "broken.mp4" in error


def test_the_command_has_a_summary_for_the_help():
    assert (command.predict.__doc__ or "").endswith(".")
