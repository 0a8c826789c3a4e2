"""Errors that a user can correct."""

import pytest

from mmaction_lite.errors import (
    Interrupted,
    MissingSplitError,
    UserError,
    VideoError,
    describe,
    nearest,
    printable,
    reading,
)


@pytest.mark.parametrize("kind", [VideoError, MissingSplitError, Interrupted])
def test_every_kind_is_shown_as_one_line(kind):
    assert issubclass(kind, UserError)


def test_nearest_names_are_listed_best_first():
    names = ["tsm_r50", "tsn_r50", "slowfast_r50"]
    assert nearest("tsm_r5", names).startswith("nearest: tsm_r50, tsn_r50")
    assert nearest("epohcs", ["epochs", "model"]).startswith("nearest: epochs")


def test_all_names_are_listed_where_none_is_near():
    assert nearest("xyz", ["b", "a"]) == "valid: a, b"
    assert nearest("!", [f"{number:02}" for number in range(30)]).endswith("19, …")


@pytest.mark.parametrize(
    "cause", [AttributeError("'NoneType' has no attribute 'x'"), RecursionError(), KeyError("a\nb")]
)
def test_any_exception_while_reading_becomes_one_line_about_the_file(cause):
    with pytest.raises(VideoError) as raised, reading("clip.mp4", VideoError):
        raise cause
    assert str(raised.value).startswith(f"clip.mp4: cannot be read ({type(cause).__name__}")
    assert "\n" not in str(raised.value)


def test_a_user_error_passes_a_reader_unchanged():
    with pytest.raises(UserError, match=r"^line 3: wrong$"), reading("clip.mp4", VideoError):
        raise UserError("line 3: wrong")


def test_an_interruption_passes_a_reader_unchanged():
    with pytest.raises(KeyboardInterrupt), reading("clip.mp4"):
        raise KeyboardInterrupt


def test_text_from_files_is_printable():
    assert printable("a\x1b[2J\u202eb\udcff\n") == "a\\x1b[2J\\u202eb\\udcff\\n"
    assert printable("Übung 拍手\u3000x") == "Übung 拍手\u3000x"
    assert printable("x" * 50, 10) == "x" * 9 + "…"


def test_an_operating_system_error_is_described_by_its_reason():
    assert describe(OSError(28, "No space left on device")) == "No space left on device"
    assert describe(ValueError("a\n  b")) == "ValueError: a b"
