"""Numbers of the benchmark tables."""

import json

import pytest

from mmaction_lite.benchmark.tables import (
    Ratio,
    data_share,
    feeding_table,
    main_table,
    part_ratios,
    ratio,
    ratio_table,
    seconds,
)
from tests.docs.pages import ROOT


def test_ratios_are_taken_round_by_round():
    def rounds(*means):
        return [[{"iteration": mean - 0.1}, {"iteration": mean + 0.1}] for mean in means]

    assert ratio({"ours": rounds(1, 2, 9), "peer": rounds(2, 2, 10)}) == Ratio(0.9, 0.5, 1.0)
    assert ratio({"ours": rounds(1)}) is None


def test_seconds_are_the_median_of_all_steps_and_data_share_is_of_their_sum():
    turns = [[{"iteration": 1.0, "data": 0.5}, {"iteration": 2.0}], [{"iteration": 5.0, "data": 1.5}]]
    assert seconds(turns) == 2.0
    assert seconds(turns, "data") == 0.5  # a step without the stage took no time
    assert data_share(turns) == 2.0 / 8.0


@pytest.mark.parametrize(
    ("waiting", "milliseconds", "limit"),
    [
        (0.019, 5000.0, "network"),  # waits for less than 2% of the time
        (0.021, 990.0, "network"),  # or the network keeps less than half of the two processes busy
        (0.021, 1010.0, "decoding"),
    ],
)
def test_decoding_is_the_limit_when_steps_wait_and_processes_are_busy(waiting, milliseconds, limit):
    steps = [[{"iteration": 2.0, "data": 2.0 * waiting}]]
    row = {
        "setting": "TSN 1x1x3",
        "batch_size": 1,
        "train": {"ours": [[{"iteration": 1.0}]]},
        "video": {"ours": steps},
        "read_milliseconds": {"video": milliseconds},
    }
    table = feeding_table({"options": {"workers": 2}, "results": [row]})
    cells = table.splitlines()[2].strip("| ").split(" | ")
    assert cells[0] == "TSN 1x1x3"
    assert cells[-3:] == ["video", f"{waiting:.1%}", limit]


def test_a_framework_with_steps_from_files_only_is_shown():
    found = json.loads((ROOT / "docs/benchmarks/cpu.json").read_text(encoding="utf-8"))
    (row,) = (row for row in found["results"] if (row["setting"], row["peer"]) == ("TSN 1x1x3", "mit_tsm"))
    found["results"] = [row]
    whole = main_table(found, "log").splitlines()[-1].split(" | ")
    for phase in ("train", "infer", "memory_mib"):
        del row[phase]["peer"]
    line = main_table(found, "log").splitlines()[-1].split(" | ")
    assert line[:4] == whole[:4]
    assert line[4:7] == ["–", "–", "–"]
    assert line[7] == whole[7]
    assert line[8] == "–"
    ratios = ratio_table(found).splitlines()[-1].split(" | ")
    assert ratios[2].startswith("**0.")
    assert ratios[3:6] == ["–", "–", "–"]
    assert set(part_ratios(found["results"][0])) == {"iteration from files"}
