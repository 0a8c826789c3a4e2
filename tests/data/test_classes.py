import pytest

from mmaction_lite.data.annotations.classes import (
    ClassIndex,
    check_class_name,
    class_name,
    class_notes,
    read_classes,
    write_classes,
)
from mmaction_lite.errors import UserError


def test_names_are_read_one_per_line(tmp_path):
    (tmp_path / "classes.txt").write_text("run fast\n jump \n\n")
    assert read_classes(tmp_path / "classes.txt") == ("run fast", "jump")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run\n\njump\n", r"classes\.txt:2: is blank"),
        ("\nrun\n", r"classes\.txt:1: is blank"),
        ("run\njump\n run \n", r"classes\.txt:3: class 'run' is also in line 1"),
        ("Übung\nU\u0308bung\n", r"classes\.txt:2: class 'Übung' is also in line 1"),
        (
            "run\nju\x1b[2Jmp\n",
            r"classes\.txt:2: the class name 'ju\\x1b\[2Jmp' contains a control character",
        ),
        ("a\tb\n", r"classes\.txt:1: the class name 'a\\tb' contains a control character"),
        ("\n\n", r"classes\.txt: has no class names"),
        ("", r"classes\.txt: has no class names"),
    ],
)
def test_class_files_that_are_ambiguous_are_an_error(tmp_path, text, message):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_classes(tmp_path / "classes.txt")


def test_names_are_written_as_they_are_read(tmp_path):
    names = ("#1", "a, b", "it's", '"q"', "50 %", "a: b", "\u200fשלום", "a\u00a0b", "拍手", "0")
    write_classes(tmp_path / "classes.txt", names)
    assert read_classes(tmp_path / "classes.txt") == names
    (note,) = class_notes(tmp_path / "classes.txt", names)
    assert "1 class names begin with #" in note


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a "), ("a\nb",), ("\udcff",), ("",), ("\ufeffa",)])
def test_names_that_would_be_read_differently_are_not_written(tmp_path, names):
    with pytest.raises(UserError):
        write_classes(tmp_path / "classes.txt", names)
    assert not (tmp_path / "classes.txt").exists()


def test_names_are_compared_in_one_form():
    assert class_name(" U\u0308bung\u00a0") == "Übung"
    index = ClassIndex(("U\u0308bung", "run", "run "))
    assert index.find("Übung", str) == 0
    assert index.ambiguous == {"run"}
    with pytest.raises(UserError, match="x:1: several of the 3 known classes have the name 'run'"):
        index.find("run", lambda: "x:1")
    with pytest.raises(UserError, match="x:1: class 'rnu' is not among the 3 known classes; nearest: run"):
        index.find("rnu", lambda: "x:1")
    with pytest.raises(UserError, match=r"f:3: the class name 'a\\x07' contains"):
        check_class_name("a\x07", "f:3")
