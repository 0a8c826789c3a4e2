"""Classes of mirrored and of reversed clips."""

from time import perf_counter

import numpy as np
import pytest

from mmaction_lite.data.annotations.label_flips import (
    describe_flips,
    mirror_labels,
    mirrored_classes,
    reversed_classes,
)
from mmaction_lite.data.generated.motions import CLASSES
from mmaction_lite.errors import UserError
from mmaction_lite.tasks.multi_label import MultiLabel


def test_mirrored_classes_change_sides():
    classes = ("turn left", "swipe_right", "jump", "turn right", "swipe_left", "leftover")
    assert mirrored_classes(classes).tolist() == [3, 4, 2, 0, 1, 5]
    assert mirrored_classes(("rotate_clockwise", "rotate_counterclockwise")).tolist() == [1, 0]
    with pytest.raises(UserError, match=r"'Turn left' mirrored would be 'Turn right', .*train\.flip=0"):
        mirrored_classes(("Turn left", "jump"))


def test_reversed_classes_change_places():
    swapped = reversed_classes(CLASSES)
    assert [CLASSES[i] for i in swapped] == [CLASSES[i ^ 1] for i in range(10)]
    pairs = [
        ("Putting something into something", "Taking something out of something"),
        ("Pulling something from left to right", "Pushing something from right to left"),
        ("Moving away from something with your camera", "Approaching something with your camera"),
        ("Zooming In With Full Hand", "Zooming Out With Full Hand"),
        ("open_door", "close_door"),
        ("clapping", "clapping"),
        ("Thumb Up", "Thumb Up"),
        ("wave left hand", "wave left hand"),
        ("uppercut", "uppercut"),
    ]
    names = sorted({name for pair in pairs for name in pair})
    swapped = reversed_classes(names)
    for name, other in pairs:
        assert names[swapped[names.index(name)]] == other
        assert names[swapped[names.index(other)]] == name


def test_a_direction_without_its_opposite_is_refused():
    with pytest.raises(
        UserError, match=r"'Turning left' played backwards would be 'Turning right', which is not a class"
    ):
        reversed_classes(["Turning left", "clapping"])


def test_labels_of_altered_clips_are_exchanged():
    flips = mirrored_classes(("turn left", "turn right", "walk"))
    assert flips[np.array([0, 2, 1, 1])].tolist() == [1, 2, 0, 0]
    several = [np.array([0, 2]), np.array([1])]
    found = [MultiLabel().target(flips[labels], 3).tolist() for labels in several]
    assert found == [[0, 1, 1], [1, 0, 0]]


# Of each published class list: the pairs that a mirror exchanges, and the names that are easily mistaken for
# a side. The lists contain no other name with a side.
SOMETHING = [
    ("Pushing something from left to right", "Pushing something from right to left"),
    ("Pulling something from left to right", "Pulling something from right to left"),
    ("Turning the camera left while filming something", "Turning the camera right while filming something"),
]
NO_SIDE_OF_SOMETHING = [
    "Plugging something into something but pulling it right out as you remove your hand",
    "Putting something that cannot actually stand upright upright on the table, so it falls on its side",
    "Laying something on the table on its side, not upright",
    "Turning something upside down",
    "Showing that something is inside something",
    "Moving something closer to something",
]
PUBLISHED = {
    "Something-Something v1": (SOMETHING, [*NO_SIDE_OF_SOMETHING, "Putting something upright on the table"]),
    "Something-Something v2": (
        SOMETHING,
        [*NO_SIDE_OF_SOMETHING, "Turning the camera upwards"],
    ),
    "Jester": (
        [
            ("Swiping Left", "Swiping Right"),
            ("Sliding Two Fingers Left", "Sliding Two Fingers Right"),
            ("Turning Hand Clockwise", "Turning Hand Counterclockwise"),
        ],
        [
            *(
                "Swiping Down",
                "Swiping Up",
                "Pushing Hand Away",
                "Pulling Hand In",
                "Sliding Two Fingers Down",
            ),
            *("Sliding Two Fingers Up", "Pushing Two Fingers Away", "Pulling Two Fingers In", "Thumb Up"),
            *("Rolling Hand Forward", "Rolling Hand Backward", "Zooming In With Full Hand", "Thumb Down"),
            *("Zooming Out With Full Hand", "Zooming In With Two Fingers", "Zooming Out With Two Fingers"),
            *("Shaking Hand", "Stop Sign", "Drumming Fingers", "No gesture", "Doing other things"),
        ],
    ),
    "Kinetics": (
        [],
        [
            *("passing American football (in game)", "passing American football (not in game)", "side kick"),
            *("clean and jerk", "country line dancing", "riding or walking with horse", "front raises"),
            *("hockey stop", "news anchoring", "shot put", "pull ups", "push up", "counting money"),
        ],
    ),
    "UCF101": (
        [],
        ["CleanAndJerk", "HandstandPushups", "PullUps", "PushUps", "CuttingInKitchen"],
    ),
    "HMDB51": ([], ["cartwheel", "draw_sword", "pullup", "pushup", "turn", "shoot_bow", "flic_flac"]),
    "Diving48": (
        [],
        [
            *("Back+15som+05Twis+FREE", "Forward+25som+1Twis+PIKE", "Inward+Dive+NoTwis+PIKE"),
            *("Reverse+15som+05Twis+FREE", "Reverse+Dive+NoTwis+TUCK", "Forward+Dive+NoTwis+STR"),
        ],
    ),
    "Moments in Time": ([], ["adult+female+speaking", "turning", "spinning", "steering", "playing+music"]),
    "ActivityNet": ([], ["Clean and jerk", "Fun sliding down", "BMX", "Rock-paper-scissors", "Tug of war"]),
    "Gym99": (
        [],
        [
            "(FX) straddle pike or side split jump with 1 turn",
            "(BB) split jump with 0.5 turn in side position",
            "(BB) salto sideward tucked, take off from one leg to side stand",
            "(UB) counter straddle over high bar to hang",
        ],
    ),
    "EPIC-Kitchens verbs": (
        [],
        ["verb: turn-on", "verb: turn", "verb: turn-down", "verb: flip"],
    ),
    "EPIC-Kitchens nouns": (
        [],
        ["noun: board:chopping", "noun: light", "noun: lighter"],
    ),
}


@pytest.mark.parametrize("data_set", PUBLISHED)
def test_published_class_lists_are_mirrored_as_written_by_hand(data_set):
    pairs, others = PUBLISHED[data_set]
    classes = [name for pair in pairs for name in pair] + others
    flips = mirror_labels(classes)
    expected = {one: other for pair in pairs for one, other in (pair, pair[::-1])}
    assert {n: classes[i] for n, i in zip(classes, flips.classes, strict=True)} == {
        name: expected.get(name, name) for name in classes
    }
    assert flips.unpaired == []


def test_published_gestures_are_reversed_as_written_by_hand():
    classes = [name for pair in PUBLISHED["Jester"][0] for name in pair] + PUBLISHED["Jester"][1]
    swapped = {n: classes[i] for n, i in zip(classes, reversed_classes(classes), strict=True)}
    pairs = [
        *PUBLISHED["Jester"][0],
        ("Swiping Down", "Swiping Up"),
        ("Sliding Two Fingers Down", "Sliding Two Fingers Up"),
        ("Pushing Hand Away", "Pulling Hand In"),
        ("Pushing Two Fingers Away", "Pulling Two Fingers In"),
        ("Rolling Hand Forward", "Rolling Hand Backward"),
        ("Zooming In With Full Hand", "Zooming Out With Full Hand"),
        ("Zooming In With Two Fingers", "Zooming Out With Two Fingers"),
    ]
    expected = {one: other for pair in pairs for one, other in (pair, pair[::-1])}
    assert swapped == {name: expected.get(name, name) for name in classes}
    ucf101 = PUBLISHED["UCF101"][1]
    assert [ucf101[i] for i in reversed_classes(ucf101)] == ucf101


@pytest.mark.parametrize(
    "pair",
    [
        *(("SwipeLeft", "SwipeRight"), ("swipeLeftHand", "swipeRightHand"), ("LEFT", "RIGHT")),
        *(("Turn_Left", "turn right"), ("TURN-LEFT", "TURN-RIGHT"), ("turnLEFT2", "turnRIGHT2")),
        *(("L", "R"), ("turn_L", "turn_R"), ("jab (L)", "jab (R)"), ("LArm", "RArm"), ("L2R", "R2L")),
        *(("rotate CW", "rotate CCW"), ("rotateCW", "rotateCCW"), ("Clockwise", "CounterClockwise")),
        *(("spin clockwise", "spin anti-clockwise"), ("spin_clockwise", "spin_counter_clockwise")),
        *(("Clockwise", "Anticlockwise"), ("CLOCKWISE", "COUNTER-CLOCKWISE"), ("cw", "anti clockwise")),
        *(("lefthand", "righthand"), ("look leftwards", "look rightward"), ("swipeleft", "swiperight")),
        *(("wave left-to-right", "wave right-to-left"), ("left2right", "right2left"), ("upleft", "upright")),
        *(("swipe LtoR", "swipe RtoL"), ("spin clock-wise", "spin counter clock wise")),
        *(("01_left_hook", "02_right_hook"), ("Übung links", "Übung rechts"), ("左转", "右转")),
        *(("U\N{COMBINING DIAERESIS}ben left", "Üben right"), ("bras gauche", "bras droit")),
    ],
)
def test_sides_are_found_in_every_spelling(pair):
    others = ("jump", "bright light", "leftovers", "pulling it right out", "person left the room", "nodding")
    assert mirrored_classes((*pair, *others)).tolist() == [1, 0, 2, 3, 4, 5, 6, 7]
    assert mirrored_classes((*others, *pair[::-1])).tolist() == [0, 1, 2, 3, 4, 5, 7, 6]


@pytest.mark.parametrize(
    "name",
    ["Turn Left", "turnLeft", "LEFT", "swipeleft", "to the right", "leftward", "Clockwise", "anti-clockwise"],
)
def test_a_side_without_its_opposite_is_refused_in_every_spelling(name):
    with pytest.raises(UserError, match="which is not a class; train without mirroring") as caught:
        mirrored_classes(("jump", name))
    assert repr(name) in str(caught.value)


def test_the_new_name_has_the_case_of_the_old_one():
    for name, other in (("TURN LEFT", "TURN RIGHT"), ("turnLeft", "turnRight"), ("Left-Hand", "Right-Hand")):
        with pytest.raises(UserError, match=f"{name!r} mirrored would be {other!r}"):
            mirrored_classes((name, "jump"))


def test_letters_of_an_alphabet_are_no_sides():
    assert mirrored_classes("ABCDEFGHIJKLMNOPQRSTUVWXYZ").tolist() == list(range(26))
    assert mirrored_classes(("sign L", "sign R", "sign K")).tolist() == [0, 1, 2]
    assert mirrored_classes("LRUD").tolist() == [1, 0, 2, 3]


def test_a_name_of_many_letters_takes_no_long_time():
    began = perf_counter()
    assert mirrored_classes(("l " * 5000 + "z", "jump")).tolist() == [0, 1]
    assert perf_counter() - began < 5


def test_classes_that_differ_only_in_spelling_are_refused():
    with pytest.raises(UserError, match="rename classes that differ only in spelling, or train without mir"):
        mirrored_classes(("turn left", "Turn Left", "turn right"))


def test_notes_name_the_classes_that_exchange_labels():
    classes = ("turn left", "turn right", "lift L", "R&B dance", "jump")
    exchanged, kept = describe_flips(classes, mirror_labels(classes), "mirrored")
    assert exchanged == "mirrored clips of 2 classes get the label of another class: turn left ↔ turn right"
    assert kept.startswith("mirrored clips of 2 classes keep their label")
    assert kept.endswith("lift L, R&B dance")
    assert describe_flips(("jump", "upright"), mirror_labels(("jump", "upright")), "mirrored") == []
