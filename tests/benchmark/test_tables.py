"""The rows of the benchmark page and what is made of their numbers."""

from pathlib import Path

import pytest

from mmaction_lite.benchmark.page import render_page
from mmaction_lite.benchmark.run import read_result
from mmaction_lite.benchmark.settings import SETTINGS, find_setting
from mmaction_lite.benchmark.tables import Ratio, ratio
from mmaction_lite.errors import UserError
from mmaction_lite.models import slowonly_r50
from mmaction_lite.models.complexity import traffic

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = sorted((DOCS / "benchmarks").glob("*.json"))
RECIPE = "tsm_r10_1x1x8_12e_motions_rgb"


def test_ratios_are_taken_round_by_round():
    def rounds(*means):
        return [[{"iteration": mean - 0.1}, {"iteration": mean + 0.1}] for mean in means]

    assert ratio({"ours": rounds(1, 2, 9), "peer": rounds(2, 2, 10)}) == Ratio(0.9, 0.5, 1.0)
    assert ratio({"ours": rounds(1)}) is None
    phase = {"ours": rounds(1, 1), "int8": rounds(0.2, 0.3), "peer": rounds(2, 2)}
    assert ratio(phase, "int8") == pytest.approx(Ratio(0.125, 0.1, 0.15))


def test_every_row_of_the_page_has_its_recipe_and_the_shape_of_its_peers():
    names = [setting.name for setting in SETTINGS]
    assert len(set(names)) == len(names)
    for setting in SETTINGS:
        assert find_setting(setting.name) is setting
        frames = setting.build().train.view_shape[0]
        assert frames == {"TSN 1x1x3": 3, "TSM 1x1x8": 8}.get(setting.name, frames)
    assert find_setting(RECIPE).name == RECIPE
    with pytest.raises(UserError, match="no row of the benchmark is called 'TSX'"):
        find_setting("TSX")


def test_each_worker_of_a_peer_knows_its_rows_and_imports_nothing_of_ours():
    scripts = Path(__file__).parents[2] / "benchmarks" / "peers"
    for setting in SETTINGS:
        for peer, name in setting.peers.items():
            assert f'"{name}"' in (scripts / f"worker_{peer}.py").read_text()
            assert (scripts / f"{peer}.txt").exists()
    for script in scripts.glob("*.py"):
        lines = script.read_text().splitlines()
        assert not [
            line for line in lines if line.startswith(("import ", "from ")) and "mmaction_lite" in line
        ]


def test_traffic_counts_what_is_read_and_written():
    moved = traffic(slowonly_r50(), (1, 3, 8, 224, 224))
    # ResNet-50 has some 11 M activations a frame; all are read and written several times.
    assert 8 * 11e6 * 4 < moved < 8 * 11e6 * 4 * 10


@pytest.mark.skipif(not RESULTS, reason="no results are committed")
def test_the_page_says_what_the_files_say():
    page = DOCS / "benchmark.md"
    results = [(file, read_result(file)) for file in RESULTS]
    assert page.read_text(encoding="utf-8") == render_page(results, DOCS)
    for file in RESULTS:
        assert file.with_suffix(".png").exists() or read_result(file)["options"]["devices"] > 1
