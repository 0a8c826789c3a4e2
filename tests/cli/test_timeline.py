"""The command `timeline`: outputs, resuming, errors and interruptions."""

import csv
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmaction_lite.cli import timeline
from mmaction_lite.cli.timeline import FORMATS, output_names
from mmaction_lite.inference import long_video
from tests.conftest import brightening, write_video
from tests.data.mutants import mutant, write_bases

# Damaged videos of the slow test; 2,000 take about five minutes.
MUTANTS = int(os.environ.get("MMACTION_LITE_MUTANTS", "60"))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Brightening and darkening in turn, 16 frames (0.64 s) each."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    write_video(path, np.concatenate([brightening(number) for number in range(12)]))
    return path


OPTIONS = ("--window", "0.64", "--stride", "0.16", "--enter", "0.1", "--leave", "0.1")


def test_segments_are_printed(run, trained, long):
    code, output, error = run("timeline", trained, long, *OPTIONS)
    assert code == 0, error
    first, *segments, line = output.splitlines()
    assert first.startswith(f"{long}: {len(segments)} segment")
    assert segments[0].startswith("  0:00.000 – 0:0")
    assert "windows of 0.64 s every 0.16 s; smoothed over 1 s; enter 0.1, leave 0.1" in line


def test_json_is_one_object(run, trained, long, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    code, output, error = run("timeline", trained, tmp_path / "broken.mp4", long, "--json", *OPTIONS)
    assert code == 2
    broken, found = json.loads(output)["videos"]
    assert "broken.mp4" in error
    assert broken.keys() == {"video", "error"}
    assert found["duration"] == pytest.approx(192 / 25)
    assert found["windows"] == 45
    assert found["segments"][0]["start_seconds"] == 0
    assert found["segments"][-1]["end_frame"] == 192
    assert found["segments"][-1]["end_seconds"] == pytest.approx(192 / 25)
    ends = [segment["end_frame"] for segment in found["segments"]]
    assert ends[:-1] == [segment["first_frame"] for segment in found["segments"]][1:]


def test_files_of_all_formats(run, trained, long, tmp_path):
    out = tmp_path / "out"
    code, output, error = run("timeline", trained, long, "--out", out, *OPTIONS)
    assert (code, error) == (0, "")
    names = {"segments.csv", "activitynet.json", "long.srt", "long.vtt", "long.png", "long.windows.jsonl"}
    assert {path.name for path in out.iterdir()} == names | {".written.json"}
    assert output.splitlines()[-1] == str(out)
    with (out / "segments.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["video"] == str(long)
    assert "1x1x8 frames" in rows[0]["protocol"]
    results = json.loads((out / "activitynet.json").read_text())["results"]
    assert len(results["long"]) == len(rows)
    assert (out / "long.srt").read_text().startswith("1\n00:00:00,000 --> ")
    with Image.open(out / "long.png") as picture:
        assert picture.size[0] == 1100
    assert len(FORMATS) == 5


def test_scored_windows_are_used_again(run, trained, long, tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("computed again")

    command = ("timeline", trained, long, "--out", tmp_path / "out", "--format", "csv", *OPTIONS)
    run(*command)
    before = (tmp_path / "out" / "segments.csv").read_text()
    monkeypatch.setattr(long_video, "compute_scores", forbidden)
    assert run(*command)[0] == 0
    assert (tmp_path / "out" / "segments.csv").read_text() == before
    assert run(*command, "--smooth", "0", "--enter", "0.4")[0] == 0
    monkeypatch.undo()
    code, _, error = run(*command, "--stride", "0.32")
    assert code == 0
    assert "long.windows.jsonl: holds windows of another windows, so they are computed again" in error


def test_an_interrupted_run_resumes(run, trained, long, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = ("--format", "csv", *OPTIONS)
    run("timeline", trained, long, "--out", whole, *options)
    compute, calls = long_video.compute_scores, []

    def interrupted(*arguments, **options):
        calls.append(len(arguments[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compute(*arguments, **options)

    monkeypatch.setattr(long_video, "compute_scores", interrupted)
    code, _, error = run("timeline", trained, long, "--out", out, *options)
    assert code == 130
    assert error == f"stopped in {long}; its windows are kept in {out}, and the same command resumes\n"
    assert len((out / "long.windows.jsonl").read_text().splitlines()) == 1 + 16
    with (out / "long.windows.jsonl").open("a") as file:
        file.write('{"number": 16, "sco')  # the process was killed while it wrote
    calls[:] = [0, 0]
    code, _, error = run("timeline", trained, long, "--out", out, *options)
    assert (code, error) == (0, "")
    assert sum(calls) == 45 - 16
    assert (out / "segments.csv").read_text() == (whole / "segments.csv").read_text()
    assert (out / "long.windows.jsonl").read_text() == (whole / "long.windows.jsonl").read_text()


def test_damage_is_noted_with_its_time(run, trained, tmp_path):
    from tests import barcode
    from tests.data.test_sequential import damage

    path = barcode.write(tmp_path / "damaged.mp4", range(150), options={"g": "20", "bf": "0"})
    damage(path, 66)
    for _ in range(2):  # the second call uses the stored windows
        code, output, error = run(
            "timeline", trained, path, "--out", tmp_path / "out", "--format", "csv", "--json", *OPTIONS
        )
        assert code == 0
        assert "frame 66 does not decode" in error
        assert "windows from 2.20 s to 2.63 s are left out" in error
        row = json.loads(output)["videos"][0]
        assert len(row["notes"]) == 1
        assert 0 < row["windows"] < 28


def test_folders_of_frames_need_a_frame_rate(run, trained, long, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(brightening(0)):
        Image.fromarray(frame).save(folder / f"{number:03d}.jpg")
    code, _, error = run("timeline", trained, folder, *OPTIONS)
    assert (code, error) == (2, f"{folder}: image files have no times; pass --fps\n")
    code, output, _ = run("timeline", trained, folder, "--fps", 10, "--json", *OPTIONS)
    assert code == 0
    assert json.loads(output)["videos"][0]["duration"] == pytest.approx(1.6)


def test_wrong_options_are_one_line(run, trained, long, tmp_path):
    for options, message in [
        (("--background", "nothing"), "background 'nothing': is not a class"),
        (("--enter", "0.2"), "expected leave at most as high as enter"),
        (("--enter", "1.5"), "'--enter': Input should be less than or equal to 1; got '1.5'"),
        (("--stride", "0"), "'--stride': Input should be greater than or equal to 0.01"),
        (("--window", "0"), "'--window': Input should be greater than or equal to 0.01"),
        (("--window", "nan"), "'--window': Input should be greater than or equal to 0.01"),
        (("--fps", "-1"), "--fps -1.0: expected a number above 0"),
        (("--out", tmp_path / "out", "--format", "xml"), "--format xml: is not a format"),
        (("--out", long), "holds the data that are read; use another folder"),
    ]:
        code, output, error = run("timeline", trained, long, *options)
        assert (code, output) == (2, "")
        assert error.count("\n") == 1
        assert message in error


def test_files_of_the_user_are_not_overwritten(run, trained, long, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("segments.csv", "long.windows.jsonl"):
        (out / name).write_text("mine")
        code, _, error = run("timeline", trained, long, "--out", out, *OPTIONS)
        assert code == 2
        assert "not overwritten" in error
        assert (out / name).read_text() == "mine"
        (out / name).unlink()


def test_videos_of_one_name_have_different_files():
    clips = [Path("a/x.mp4"), Path("b/x.avi"), Path("c/y.mp4"), Path("d/x.mp4")]
    assert output_names(clips) == ["x", "x-2", "y", "x-3"]


def test_the_best_path_is_the_default_and_crops_change_the_protocol(run, trained, long):
    common = ("timeline", trained, long, "--json", "--stride", "0.5")
    code, output, _ = run(*common, "--crops", "three", "--min-length", "0.5")
    assert code == 0
    three = json.loads(output)["videos"][0]
    assert "1 clip × 3 crops (ThreeCrop" in three["protocol"]
    assert three["protocol"].endswith("; best path, switch 1.5 s; threshold 0.3; at least 0.5 s")
    code, output, error = run(*common, "--crops", "4")
    assert (code, error) == (2, "error: crops is '4'; expected center, three or ten (or 1, 3, 10)\n")
    code, output, error = run(*common, "--switch", "1", "--smooth", "1")
    assert (code, error.count("\n")) == (2, 1)
    assert "--switch and --smooth are given; --switch and --threshold belong to the best path" in error


@pytest.mark.slow
def test_damaged_videos_give_rows_or_one_line(run, trained, tmp_path, monkeypatch):
    folder = tmp_path / "mutants"
    bases, seconds, num_found = write_bases(folder / "bases"), [], 0
    work = timeline.Job.run

    def timed(*arguments):
        start = time.monotonic()
        try:
            return work(*arguments)
        finally:
            seconds.append(time.monotonic() - start)

    monkeypatch.setattr(timeline.Job, "run", timed)
    for first in range(0, MUTANTS, 20):
        paths = []
        for number in range(first, min(first + 20, MUTANTS)):
            name, content = mutant(number, bases)
            paths.append(folder / name)
            paths[-1].write_bytes(content)
        options = ("--window", "0.3", "--stride", "0.1", "--out", folder / f"out{first}", "--json")
        code, output, error = run("timeline", trained, *paths, *options)
        assert "Traceback" not in error
        rows = json.loads(output)["videos"]
        assert [row["video"] for row in rows] == list(map(str, paths))
        assert code == (2 if any("error" in row for row in rows) else 0)
        for row in rows:
            message = row.get("error", row["video"])
            assert message.startswith(row["video"]), message
            assert message.isprintable()
        num_found += sum("segments" in row for row in rows)
        for path in paths:
            path.unlink()
    print(f"{MUTANTS} mutants: {num_found} have windows; the slowest took {max(seconds):.1f} s")
    assert max(seconds) < 10
    assert MUTANTS / 4 < num_found < MUTANTS
