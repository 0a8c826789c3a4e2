from mmaction_lite.data.annotations.classes import read_classes


def test_names_are_read_one_per_line(tmp_path):
    (tmp_path / "classes.txt").write_text("run fast\n jump \n\n")
    assert read_classes(tmp_path / "classes.txt") == ("run fast", "jump")
