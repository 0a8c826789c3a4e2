from mmaction_lite.report.run_folder import read_run
from tests.report.test_page import add_scores, make_run


def test_a_run_folder_without_and_with_scores(tmp_path):
    folder = make_run(tmp_path / "run")
    run = read_run(folder)
    assert (run.name, len(run.training), len(run.validation)) == ("tsn_small, seed 0", 30, 3)
    assert run.scores is None
    assert run.quarantine == []
    add_scores(folder / "val.npz")
    add_scores(folder / "test.npz")
    scores = read_run(folder).scores
    assert scores is not None
    assert scores.file.name == "test.npz"
