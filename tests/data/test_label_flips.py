"""Classes of mirrored and of reversed clips."""

import numpy as np
import pytest

from mmaction_lite.data.annotations.label_flips import mirrored_classes, reversed_classes
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
