"""The rows of the benchmark page: their recipes, input shapes and batch sizes, and the peers' workers."""

import json
from pathlib import Path

import pytest

from mmaction_lite.benchmark.settings import SETTINGS, find_setting
from mmaction_lite.errors import UserError

ROOT = Path(__file__).parents[2]
RECIPE = "tsm_r10_1x1x8_12e_motions_rgb"

# (frames, frame interval or 0 for segments, pixels, published clips per GPU), written from the publications.
ROWS = {
    "TSN 1x1x3": (3, 0, 224, 32),
    "I3D 32x2": (32, 2, 224, 8),
    "I3D 32x2, fast": (32, 2, 224, 8),
    "I3D 8x8": (8, 8, 224, 8),
    "C2D 8x8": (8, 8, 224, 8),
    "TSM 1x1x8": (8, 0, 224, 16),
    "SlowFast 4x16": (32, 2, 224, 8),
    "SlowFast 8x8": (32, 2, 224, 8),
    "SlowOnly 4x16": (4, 16, 224, 16),
    "SlowOnly 8x8": (8, 8, 224, 16),
    "R(2+1)D-34 8x8": (8, 8, 224, 8),
    "R(2+1)D-34 32x2": (32, 2, 224, 8),
    "R(2+1)D-50 16x4": (16, 4, 224, 8),
    "R(2+1)D-18 16x2, 112": (16, 2, 112, 24),
    "X3D-S 13x6, 160": (13, 6, 160, 16),
    "X3D-M 16x5": (16, 5, 224, 16),
    "VideoMAE-S 16x4": (16, 4, 224, 8),
    "VideoMAE-B 16x4, 4 blocks": (16, 4, 224, 8),
    "V-JEPA 2 L 16x4, 4 blocks": (16, 4, 256, 8),
    "MViTv2-S 16x4": (16, 4, 224, 8),
    "Video Swin-T 32x2": (32, 2, 224, 8),
}


def test_rows_are_found_by_name_and_any_recipe_becomes_one():
    assert [setting.name for setting in SETTINGS] == list(ROWS)
    for setting in SETTINGS:
        assert find_setting(setting.name) is setting
        assert not isinstance(setting.recipe, str) or find_setting(setting.recipe) is setting
    assert find_setting(RECIPE).name == RECIPE
    with pytest.raises(UserError, match="no row of the benchmark is called 'TSX'"):
        find_setting("TSX")


@pytest.mark.parametrize("name", ROWS)
def test_a_row_trains_on_clips_of_the_published_shape(name):
    frames, interval, size, batch_size = ROWS[name]
    setting = find_setting(name)
    recipe = setting.build()
    assert recipe.train.view_shape == (frames, size, size, 3)
    assert str(recipe.train.clips) == (f"{frames}x{interval}x1" if interval else f"1x1x{frames}")
    assert setting.published_batch == batch_size


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "benchmarks").glob("*.json")), ids=lambda f: f.stem)
def test_results_were_measured_on_clips_of_that_shape(file):
    result = json.loads(file.read_text())
    assert result["results"]
    for row in result["results"]:
        frames, _, size, batch_size = ROWS[row["setting"]]
        assert row["input"] == [row["batch_size"], frames, size, size]
        setting = find_setting(row["setting"])
        assert row["recipe"] == setting.build().name
        if result["options"]["batch_size"] is None:
            is_cpu = result["options"]["device"] == "cpu"
            assert row["batch_size"] == (setting.cpu_batch if is_cpu else batch_size)


def test_each_worker_of_a_peer_knows_its_rows_and_imports_nothing_of_ours():
    scripts = ROOT / "benchmarks" / "peers"
    for setting in SETTINGS:
        for peer, name in setting.peers.items():
            assert f'"{name}"' in (scripts / f"worker_{peer}.py").read_text()
            assert (scripts / f"{peer}.txt").exists()
    for script in scripts.glob("*.py"):
        lines = script.read_text().splitlines()
        assert not [
            line for line in lines if line.startswith(("import ", "from ")) and "mmaction_lite" in line
        ]
