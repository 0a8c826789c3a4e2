import pytest

from mmaction_lite.report.heads import head_table


def heads(*scores: float):
    return [
        {"lr": lr, "weight_decay": 0.1, "top1": score, "loss": 1 - score}
        for lr, score in zip((1e-3, 1e-2), scores, strict=True)
    ]


def test_the_table_has_the_best_and_the_last_scores():
    rows = [
        {"epoch": 1, "heads": heads(0.2, 0.5), "best_head": 1},
        {"epoch": 2, "heads": heads(0.6, 0.5), "best_head": 0},
        {"epoch": 3, "heads": heads(0.4, 0.3), "best_head": 0},
    ]
    found = head_table(rows)
    assert found is not None
    assert found["title"] == "top-1"
    one, two = found["rows"]
    assert (one["lr"], one["best"], one["epoch"], one["last"], one["is_kept"]) == (
        "0.001",
        0.6,
        "2",
        0.4,
        True,
    )
    assert (two["lr"], two["best"], two["epoch"], two["last"], two["is_kept"]) == (
        "0.01",
        0.5,
        "1",
        0.3,
        False,
    )
    assert two["loss"] == "0.700"


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"epoch": 1}],
        [{"epoch": 1, "heads": 3, "best_head": 0}],
        [{"epoch": 1, "heads": [], "best_head": 0}],
        [{"epoch": 1, "heads": heads(0.1, 0.2), "best_head": 7}],
        [{"epoch": 1, "heads": [{"lr": "x"}, {}], "best_head": 0}],
        [{"epoch": 1, "heads": heads(0.1, 0.2)[:1], "best_head": 0}],
    ],
)
def test_other_runs_and_damaged_rows_have_no_table(rows):
    assert head_table(rows) is None
