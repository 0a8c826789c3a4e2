"""The command `predict`: results while running, files of them, annotated videos, faults."""

import csv
import json
import os
import time

import pytest

from mmaction_lite.cli import predict as command
from mmaction_lite.data.sources.video import Video
from mmaction_lite.inference import prediction_files
from mmaction_lite.inference.prediction_files import to_row
from tests.data.mutants import mutant, write_bases

MUTANTS, WORKERS = (
    int(os.environ.get("MMACTION_LITE_MUTANTS", "60")),
    int(os.environ.get("MMACTION_LITE_WORKERS", "0")),
)

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


@pytest.fixture
def clips(tiny, tmp_path):
    """Two videos and a broken one between them."""
    paths = [tmp_path / f"{name}.mp4" for name in "abc"]
    for path, source in zip(paths, ("up/12", "down/13", "up/14"), strict=True):
        path.write_bytes((tiny / "val" / f"{source}.mp4").read_bytes())
    paths[1].write_bytes(b"broken")
    return paths


def test_files_have_the_rows_of_the_json_object(run, trained, clips, tmp_path):
    files = ["--csv", tmp_path / "a.csv", "--jsonl", tmp_path / "a.jsonl"]
    code, output, error = run("predict", trained, *clips, "--json", "--top", 1, *files)
    rows = json.loads(output)["videos"]
    assert code == 2
    assert error.startswith(f"{clips[1]}: ")
    assert [row["video"] for row in rows] == list(map(str, clips))
    assert [len(row.get("predictions", [])) for row in rows] == [1, 0, 1]
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == rows
    table = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["label"] for row in table] == [
        rows[0]["predictions"][0]["label"],
        "",
        rows[2]["predictions"][0]["label"],
    ]
    code, _, error = run("predict", trained, clips[0], "--csv", clips[2])
    assert code == 2
    assert "exists and is not a file of predictions" in error


def test_threshold_clips_and_crops(run, trained, clips):
    code, output, _ = run("predict", trained, clips[0], "--threshold", "1.0")
    assert (code, output.splitlines()[0]) == (0, f"{clips[0]}: no class reaches 1")
    code, output, _ = run("predict", trained, clips[0], "--crops", "three", "--clips", 1)
    assert "1 clip × 3 crops (ThreeCrop" in output.splitlines()[-1]
    code, _, error = run("predict", trained, clips[0], "--clips", 4)
    assert code == 2
    assert (
        "clips is 4; expected 1, because the protocol takes one clip with a frame of each of 8 parts" in error
    )
    code, _, error = run("predict", trained, clips[0], "--crops", "4")
    assert error == "error: crops is '4'; expected center, three or ten (or 1, 3, 10)\n"


def test_ctrl_c_keeps_the_results_so_far(run, trained, clips, tmp_path, monkeypatch):
    calls = []

    def interrupted(result, *rest):
        if calls:
            raise KeyboardInterrupt
        calls.append(result)
        return to_row(result, *rest)

    monkeypatch.setattr(prediction_files, "to_row", interrupted)
    table = tmp_path / "a.csv"
    code, output, error = run("predict", trained, clips[0], clips[2], "--csv", table, "--top", 2)
    assert code == 130
    assert output.splitlines()[0].startswith(f"{clips[0]}: ")
    assert "1 clip" in output.splitlines()[1]
    assert error == "interrupted: the results of 1 of 2 videos are complete\n"
    assert len(table.read_text().splitlines()) == 3


def test_annotated_videos(run, trained, clips, tmp_path):
    out = tmp_path / "out"
    code, output, error = run("predict", trained, *clips, "--annotate", out, "--json")
    rows = json.loads(output)["videos"]
    assert [row.get("annotated") for row in rows] == [str(out / "a.mp4"), None, str(out / "c.mp4")]
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "c.mp4"]
    with Video(out / "a.mp4") as video:
        assert (len(video), video.size) == (16, (240, 320))
    code, _, error = run("predict", trained, clips[0], "--annotate", clips[0])
    assert code == 2
    assert "so it is not overwritten" in error or "is an input of this command" in error
    for _ in range(2):
        assert run("predict", trained, clips[0], "--annotate", tmp_path / "x.mp4")[0] == 0


def read_mutants(run, weights, folder, first, count, tmp_path):
    """Run `predict` on mutants `first` to `first + count - 1`; return the rows and standard error."""
    bases = write_bases(tmp_path / "bases")
    for number in range(first, first + count):
        name, content = mutant(number, bases)
        (folder / f"{name}.mp4").write_bytes(content)
    lines = tmp_path / "rows.jsonl"
    code, output, error = run("predict", weights, folder, "--jsonl", lines, "--top", 1, "--workers", WORKERS)
    assert code in (0, 2)
    assert "Traceback" not in output + error
    return [json.loads(line) for line in lines.read_text().splitlines()], error


@pytest.mark.slow
def test_mutants_are_predicted_or_reported_in_one_line(run, trained, tmp_path):
    """`MMACTION_LITE_MUTANTS=2000 MMACTION_LITE_WORKERS=2` runs the whole drill."""
    folder = tmp_path / "mutants"
    folder.mkdir()
    began = time.monotonic()
    rows, error = read_mutants(run, trained, folder, 0, MUTANTS, tmp_path)
    faults = [row["error"] for row in rows if "error" in row]
    assert len(rows) == MUTANTS
    assert 0 < len(faults) < MUTANTS
    assert all(fault.startswith(f"{folder}/m") and fault.isprintable() for fault in faults)
    assert [line for line in error.splitlines() if line.startswith(str(folder))] == faults
    print(f"{len(faults)} of {MUTANTS} unreadable, {time.monotonic() - began:.0f} s")
