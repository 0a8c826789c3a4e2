"""Files and printed results of `score`; tests/cli/test_score.py runs the command."""

from dataclasses import replace

import pytest

from mmaction_lite.cli.score_results import MOST_FLIPPED, ScoreFiles, show_comparison
from mmaction_lite.errors import UserError
from mmaction_lite.tasks.score_files import write_scores
from tests.tasks.test_fusion import table_of


def test_long_lists_of_flipped_videos_are_cut(capsys):
    show_comparison([table_of("a", 1, 400), table_of("b", 0, 400)], None, 0, False)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("wrong before, right after: /data") for line in lines) == MOST_FLIPPED
    assert any(line.endswith("more; --csv FILE lists all") for line in lines)


def test_a_comparison_writes_one_table_only(tmp_path):
    ScoreFiles(csv=tmp_path / "flips.csv").check([], is_flips=True)
    with pytest.raises(UserError, match=r"--compare writes no file but the table of --csv"):
        ScoreFiles(per_class=tmp_path / "classes.csv").check([], is_flips=True)


def test_no_score_file_is_replaced_by_the_result(tmp_path):
    file = tmp_path / "a.npz"
    write_scores(replace(table_of("a"), file=file))
    with pytest.raises(UserError, match=r"a.npz: is an input of this command; choose another name"):
        ScoreFiles(dump=file).check([file], is_flips=False)
    ScoreFiles(dump=tmp_path / "b.npz").check([file], is_flips=False)
    assert not (tmp_path / "b.npz").exists()
