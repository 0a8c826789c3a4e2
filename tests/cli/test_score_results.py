"""Printed results of `score`; tests/cli/test_score.py runs the command."""

from mmaction_lite.cli.score_results import MOST_FLIPPED, show_comparison, slice_rows
from tests.tasks.test_fusion import table_of


def test_long_lists_of_flipped_videos_are_cut(capsys):
    show_comparison([table_of("a", 1, 400), table_of("b", 0, 400)], None, 0, False)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("wrong before, right after: /data") for line in lines) == MOST_FLIPPED
    assert any(line.endswith("more; --csv FILE lists all") for line in lines)


def test_the_first_row_of_the_slices_holds_all_videos():
    (row,) = slice_rows(table_of("a"), None, [])
    assert (row["column"], row["videos"]) == ("all", 40)
