"""Stored windows are used if and only if they belong to the same model, windows and video."""

import numpy as np
import pytest

from mmaction_lite.data.sources.source import ArrayVideo, open_source
from mmaction_lite.errors import UserError
from mmaction_lite.inference.window_store import (
    Fault,
    WindowStore,
    identity_of_model,
    identity_of_video,
)
from mmaction_lite.inference.windows import Windows
from mmaction_lite.weights.card import ModelCard

ROWS = np.random.default_rng(0).random((3, 4), np.float32)


@pytest.fixture
def plan(recipe):
    return Windows(seconds=1.0, stride=0.5).plan(recipe.test_protocol, 25.0)


@pytest.fixture
def stored(tmp_path, plan):
    store = WindowStore(tmp_path / "windows.jsonl")
    store.open("model", plan, "video")
    store.append([0, 1], ROWS[:2])
    store.append_fault(Fault(7, 9, "damaged"))
    store.append([4], ROWS[2:])
    return store.path


def opened(path, plan, model="model", video="video"):
    store = WindowStore(path)
    store.open(model, plan, video)
    return store


def test_windows_and_faults_are_read_again(stored, plan):
    store = opened(stored, plan)
    assert store.numbers == [0, 1, 4]
    np.testing.assert_array_equal(store.scores, ROWS)
    assert store.faults == [Fault(7, 9, "damaged")]
    assert not store.is_complete
    assert not store.note
    store.complete()
    assert opened(stored, plan).is_complete


def test_incomplete_and_damaged_lines_are_computed_again(stored, plan):
    content = stored.read_bytes()
    for damage in (content[:-10], content + b'{"number": 9', content + b'{"number": 2, "scores": ""}\n'):
        stored.write_bytes(damage)
        store = opened(stored, plan)
        assert store.numbers in ([0, 1], [0, 1, 4])
        store.append([5], ROWS[:1])
        assert opened(stored, plan).numbers[-1] == 5
        assert stored.read_bytes().endswith(b"}\n")


def test_windows_of_something_else_are_computed_again(stored, plan, recipe):
    other = Windows(seconds=1.0, stride=0.25).plan(recipe.test_protocol, 25.0)
    content = stored.read_bytes()
    for arguments, what in [((plan, "x"), "model"), ((other,), "windows"), ((plan, "model", "x"), "video")]:
        stored.write_bytes(content)
        store = opened(stored, *arguments)
        assert store.numbers == []
        assert f"holds windows of another {what}, so they are computed again" in store.note
        assert len(stored.read_bytes().splitlines()) == 1


def test_other_files_are_not_overwritten(tmp_path, plan):
    (tmp_path / "mine.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="is not a file of window scores"):
        WindowStore(tmp_path / "mine.jsonl")


def test_identities_depend_on_weights_and_frames(recipe, tiny, tmp_path):
    card = ModelCard.of(recipe, ("down", "up"))
    first, second = card.build(), card.build()
    for model in (first, second):
        setattr(model, "card", card)  # noqa: B010
    second.load_state_dict(first.state_dict())
    assert identity_of_model(first) == identity_of_model(second)
    next(second.parameters()).data.add_(1)
    assert identity_of_model(first) != identity_of_model(second)
    clips = [tiny / "val" / "up" / "12.mp4", tiny / "val" / "up" / "14.mp4"]
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(clips[0].read_bytes())
    found = []
    for path in (*clips, moved):
        with open_source(path) as source:
            found.append(identity_of_video(source, path))
    assert found[0] == found[2] != found[1]
    array = ArrayVideo(np.zeros((5, 8, 8, 3), np.uint8))
    assert identity_of_video(array, None) != identity_of_video(ArrayVideo(array.pixels[:4]), None)
