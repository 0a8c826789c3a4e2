"""Table in the form of the first page: what stands in place of numbers that are missing."""

from typing import Any

from mmaction_lite.benchmark.first_page import first_page_form, is_of_the_first_page, summary


def result(**more: Any) -> dict[str, Any]:
    """One row of TSN beside MIT's TSM, which reads frames only."""
    ours, theirs = [[{"iteration": 1.0, "data": 0.1}]], [[{"iteration": 2.0, "data": 0.2}]]
    row = {
        "setting": "TSN 1x1x3",
        "peer": "mit_tsm",
        "peer_precision": "float32",
        "frameworks": {"ours": "mmaction-lite 1", "peer": "MIT TSM abc"},
        "train": {"ours": ours, "peer": theirs},
        "video": {"ours": ours},
        "memory_mib": {"ours": 300.0, "peer": 200.0},
        **more,
    }
    return {"options": {"device": "cpu", "precision": "float32"}, "results": [row]}


def lines(found: dict[str, Any]) -> list[str]:
    return [line for line in first_page_form(found, "[log](x.json)").splitlines() if "TSN" in line]


def test_a_framework_that_reads_nothing_states_why():
    (ours, listed, theirs) = lines(result(missing={"video": "it reads folders of JPEG frames only"}))
    assert "| **mmaction-lite 1** | 1.000 (0.100) | 300 |" in ours
    assert "| MMAction2 | – (not measured on this machine) |" in listed
    assert "| MIT TSM abc | – (it reads folders of JPEG frames only) | 200 |" in theirs


def test_a_framework_that_reads_frames_is_measured_from_frames():
    steps = {"ours": [[{"iteration": 1.0}]], "peer": [[{"iteration": 4.0, "data": 0.5}]]}
    found = result(frames=steps)
    theirs = lines(found)[-1]
    assert "| Kinetics-400, JPEG frames |" in theirs
    assert "| 4.000 (0.500) | 200 |" in theirs
    assert "iteration from files **0.25** (0.25–0.25), training step **0.50**" in summary(found)
    assert "memory of a training step **1.50**" in summary(found)


def test_only_results_from_files_are_shown():
    assert is_of_the_first_page(result())
    assert not is_of_the_first_page(result(video={}))
    assert not is_of_the_first_page(result(setting="C2D 8x8"))
