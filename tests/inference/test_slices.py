"""Slices of a split by properties of the videos and by the columns of a CSV file."""

import numpy as np
import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.inference.slices import (
    check_property,
    group_values,
    property_slices,
    read_slices,
    rows_of_slices,
    slice_table,
)
from tests.conftest import brightening, write_video
from tests.tasks.test_fusion import table_of


def test_every_slice_has_the_metrics_of_its_videos():
    table = table_of("a", 1)
    table.scores[0] = np.nan
    rows = slice_table(table, {"camera": ["left", "right"] * 20})
    assert [(row["column"], row["slice"], row["videos"], row["unreadable"]) for row in rows] == [
        ("all", "all", 40, 1),
        ("camera", "left", 20, 1),
        ("camera", "right", 20, 0),
    ]
    assert rows[0]["top1"] == table.metrics["top1"]
    assert (rows[1]["top1"] + rows[2]["top1"]) / 2 == pytest.approx(rows[0]["top1"])
    assert all(row["low"] <= row["top1"] <= row["high"] for row in rows)
    assert slice_table(table, {"n": ["10", "9"] * 20})[1]["slice"] == "9"


def test_numbers_are_grouped_into_quarters_and_rare_texts_together():
    assert set(group_values(["25", "30", "25", ""], " fps")) == {"25 fps", "30 fps", "(unknown)"}
    quarters = group_values([str(n) for n in range(100)], " s")
    assert sorted(set(quarters)) == ["0 to 24.8 s", "24.8 to 49.5 s", "49.5 to 74.2 s", "74.2 to 99 s"]
    assert max(quarters.count(name) for name in set(quarters)) <= 26
    texts = group_values([f"place {n // 2}" for n in range(140)])
    assert texts.count("(others)") == 140 - 100


def test_length_fps_and_folder_of_videos(tmp_path):
    write_video(tmp_path / "one" / "a.mp4", brightening(0))
    write_video(tmp_path / "two" / "b.mp4", brightening(1))
    (tmp_path / "two" / "broken.mp4").write_text("no video")
    paths = [str(tmp_path / name) for name in ("one/a.mp4", "two/b.mp4", "two/broken.mp4")]
    assert property_slices(paths, "folder") == ["one", "two", "two"]
    rates, lengths = property_slices(paths, "fps"), property_slices(paths, "length")
    assert rates[0] == rates[1]
    assert rates[0].endswith(" fps")
    assert rates[2] == lengths[2] == "(unknown)"
    assert property_slices([f"{paths[0]}#t=0.5,2"], "length") == ["1.5 s"]
    with pytest.raises(UserError, match="expected one of length, fps, folder"):
        check_property("size")
    assert check_property("fps") == "fps"


def test_a_csv_file_names_videos_by_path_or_file_name(tmp_path):
    file = tmp_path / "slices.csv"
    paths = ["/data/a.mp4", str(tmp_path / "x" / "b.mp4"), "/data/c.mp4", "/data/a.mp4"]
    file.write_text(
        "\ufeffVideo;weather; hour\n/data/a.mp4;sun;1\nx/b.mp4;rain;2\nc.mp4;;3\n", encoding="utf-8"
    )
    found = read_slices(file, paths)
    assert found == {
        "weather": ["sun", "rain", "(unknown)", "sun"],
        "hour": ["1", "2", "3", "1"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header with `video`"),
        ("video\na.mp4\n", "expected a header with `video`"),
        ("name,x\na.mp4,1\n", "expected a header with `video`"),
        ("video,x\na.mp4,1,2\n", "row 2 has 3 columns; expected 2"),
        ("video,x\nb.mp4,1\n", r"has no row for 1 of 1 videos, such as a\.mp4"),
        ("video,x\n\xff", "cannot be read"),
    ],
)
def test_wrong_csv_files_are_one_line(tmp_path, text, message):
    (tmp_path / "s.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=rf"s\.csv[^\n]*{message}"):
        read_slices(tmp_path / "s.csv", ["a.mp4"])
    with pytest.raises(UserError, match="cannot be read"):
        read_slices(tmp_path / "gone.csv", ["a.mp4"])


def test_rows_hold_all_videos_then_the_slices_of_properties_and_of_a_file(tmp_path):
    table = table_of("a")
    assert [(row["column"], row["videos"]) for row in rows_of_slices(table, None, [])] == [("all", 40)]
    file = tmp_path / "slices.csv"
    lines = [f"{path},{'even' if n % 2 == 0 else 'odd'}" for n, path in enumerate(table.paths)]
    file.write_text("\n".join(["video,number", *lines]))
    found = rows_of_slices(table, file, ["folder"])
    columns = {"folder": property_slices(table.paths, "folder")} | read_slices(file, table.paths)
    assert found == slice_table(table, columns)
    assert [row["slice"] for row in found if row["column"] == "number"] == ["even", "odd"]
