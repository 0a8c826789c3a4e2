import re

import pytest

from mmaction_lite.data.annotations.directions import (
    Certainty,
    Term,
    key,
    rename,
    split_opposites,
    split_sides,
)

ALL: tuple[Certainty, ...] = ("certain", "possible", "unlikely")


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("SwipeLeft", {"Left": "certain"}),
        ("turnLEFThand", {"LEFT": "certain"}),
        ("rotate Counter_Clockwise 2", {"Counter_Clockwise": "certain"}),
        ("kick R", {"R": "possible"}),
        ("pulling it right out, then left", {"right": "unlikely", "left": "certain"}),
        ("person left the room on the left", {"left": "certain"}),
        ("looking left and right", {"left": "unlikely", "right": "unlikely"}),
        ("Standing upright", {"upright": "unlikely"}),
        ("passing American football", {}),
        ("", {}),
    ],
)
def test_terms_of_a_name(name, terms):
    parts = split_sides(name)
    assert {part.text: part.certainty for part in parts if isinstance(part, Term)} == terms
    assert "".join(part if isinstance(part, str) else part.text for part in parts) == name


def test_the_spelling_does_not_change_the_key():
    spellings = ("Turn left hand", "turn_left_hand", "TURN-LEFT-HAND", "TurnLeftHand", " turn  left hand ")
    assert {key(split_sides(name)) for name in spellings} == {("turn", "<left>", "hand")}
    assert rename(split_sides("TurnLeftHAND"), ALL) == "TurnRightHAND"
    assert rename(split_sides("kick L or R"), ("certain",)) == "kick L or R"


def test_opposites_of_several_words_and_in_camel_case():
    opposites = {"into": "out of", "out of": "into"}
    ignored = re.compile("^wave ")
    assert rename(split_opposites("MoveInto", opposites, ignored), ALL) == "MoveOut of"
    assert key(split_opposites("MoveOutOf", opposites, ignored), ALL) == ("move", "<into>")
    assert rename(split_opposites("put_into_box", opposites, ignored), ALL) == "put_out_of_box"
    assert rename(split_opposites("wave left", opposites, ignored), ALL) == "wave left"


def test_long_names_take_little_time():
    name = "counter clockwise left " * 2000
    assert len(key(split_opposites(name, {"in": "out"}, re.compile("x y z")))) == 4000
