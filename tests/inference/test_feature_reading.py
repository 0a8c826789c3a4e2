"""Windows that workers read in parts are those of one pass."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mmaction_lite.data.loading.workers import IN_PROCESS, WorkerSettings
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.inference import feature_reading
from mmaction_lite.inference.feature_reading import Part, Reading, plan_parts, read_parts
from mmaction_lite.inference.windows import Windows
from tests.conftest import brightening, small_recipe, write_video

WINDOW_BYTES = 4 * 24 * 32 * 3


def open_number(paths: list[Path], number: int):
    return open_source(paths[number])


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(2):
        write_video(folder / f"{number}.mp4", brightening(number, 50 + 40 * number))
    (folder / "broken.mp4").write_bytes(b"")
    return [folder / name for name in ("0.mp4", "broken.mp4", "1.mp4")]


def reading(paths: list[Path], **changes) -> Reading:
    protocol = small_recipe().test_protocol
    names = [str(path) for path in paths]
    return Reading(names=names, open_video=partial(open_number, paths), protocol=protocol, **changes)


def test_a_whole_video_is_one_part(paths):
    found = reading(paths)
    parts = plan_parts(found, [2, 1])
    assert parts == [Part(2, 1), Part(1, 1)]
    one, broken = read_parts(found, parts)
    assert one.clips is not None
    assert one.clips.shape == (1, 1, 4, 24, 32, 3)
    assert one.spans is not None
    assert one.spans.end_frame.tolist() == [90]
    assert broken.spans is None
    assert broken.problem.startswith(f"{paths[1]}: ")


@pytest.mark.parametrize(
    "workers", [IN_PROCESS, pytest.param(WorkerSettings(num_workers=2), marks=pytest.mark.slow)]
)
def test_windows_of_several_parts_are_those_of_one(paths, workers):
    windows = Windows(seconds=0.4, stride=0.13)
    whole = reading(paths, windows=windows)
    small = replace(whole, part_bytes=5 * WINDOW_BYTES)
    one = plan_parts(whole, range(3))
    parts = plan_parts(small, range(3), workers)
    assert [part.is_last for part in one] == [True] * 3
    assert max(part.num_rows for part in parts) == 5
    assert sum(part.is_last for part in parts) == 3
    expected = {read.part.video: read for read in read_parts(whole, one)}
    for video in (0, 2):
        found = [read for read in read_parts(small, parts, workers) if read.part.video == video]
        assert len(found) > 2
        clips = np.concatenate([np.asarray(read.clips) for read in found])
        np.testing.assert_array_equal(clips, expected[video].clips)
        for name in ("start_seconds", "end_seconds", "first_frame", "end_frame"):
            joined = np.concatenate([getattr(read.spans, name) for read in found])
            np.testing.assert_array_equal(joined, getattr(expected[video].spans, name))
        assert len(clips) == sum(part.num_rows for part in parts if part.video == video)
    assert expected[1].problem.startswith(f"{paths[1]}: ")


def test_one_process_decodes_every_frame_once(paths, monkeypatch):
    found = replace(reading(paths, windows=Windows(seconds=0.4, stride=0.13)), part_bytes=5 * WINDOW_BYTES)
    parts = plan_parts(found, [0, 2])
    assert len(parts) > 4
    read, decoded = feature_reading.read_windows, []

    def counted(source, plan, **options):
        decoded.append(options["first_number"])
        return read(source, plan, **options)

    monkeypatch.setattr(feature_reading, "read_windows", counted)
    list(read_parts(found, parts))
    assert decoded == [0, 0]


def test_windows_with_damaged_frames_are_left_out(tmp_path):
    path = tmp_path / "cut.ts"
    write_video(path, brightening(0, 300))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3] + bytes(2000) + content[len(content) // 3 + 2000 :])
    found = reading([path], windows=Windows(seconds=0.2, stride=0.2))
    (read,) = read_parts(found, plan_parts(found, [0]))
    assert read.spans is not None
    assert 10 < len(read.spans.first_frame) < read.part.num_rows == 60
    assert "damaged" in read.problem or "cannot be read" in read.problem
