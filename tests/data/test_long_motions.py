"""Generated long videos hold the actions at the stated times; `timeline` finds them."""

import pytest

from mmaction_lite.data.generated import motions
from mmaction_lite.data.generated.long_motions import (
    BACKGROUND,
    generate_long,
    generate_windows,
    still_scene,
    window_clip,
)
from mmaction_lite.data.sources.sequential import frame_times
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import UserError


def test_actions_are_at_their_times(tmp_path, monkeypatch):
    monkeypatch.setitem(motions.SPLITS, "test", range(600, 603))
    path = tmp_path / "long.mp4"
    actions = generate_long(path, 12.0)
    assert len(actions) >= 2
    with Video(path) as video:
        assert video.fps == 25
        times = frame_times(video)
        assert 12.0 <= len(video) / 25 < 20
        assert times[-1] == pytest.approx((len(video) - 1) / 25)
        frames = video.frames(range(len(video))).astype(float)
    rendered = [motions.render(number) for number in motions.SPLITS["test"]]
    for label, start, end in actions:
        assert end - start == pytest.approx(2.56)
        shown = frames[round(start * 25) : round(end * 25)]
        same = [clip for clip in rendered if abs(clip - shown).mean() < 4]
        assert len(same) == 1
        assert label == motions.CLASSES[next(i for i, clip in enumerate(rendered) if clip is same[0]) % 10]
    with pytest.raises(UserError, match="expected a new file"):
        generate_long(path, 1.0)


def test_windows_hold_more_than_half_of_an_action_or_less():
    for number in range(4):
        clip = motions.render(number)
        for is_action in (True, False):
            window = window_clip(number, is_action)
            shared = max(
                sum((window[max(0, s) : 64 + min(0, s)] == clip[max(0, -s) : 64 - max(0, s)]).all((1, 2, 3)))
                for s in range(-63, 64)
            )
            assert (shared > 32) == is_action
    assert still_scene(0, 100).shape == (100, 96, 128, 3)


def test_generated_windows_are_class_folders(tmp_path):
    generate_windows(tmp_path, {"train": range(2), "val": range(10, 11)})
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mp4"))
    assert found == [
        f"train/{BACKGROUND}/000000.mp4",
        f"train/{BACKGROUND}/000001.mp4",
        "train/move_left/000000.mp4",
        "train/move_right/000001.mp4",
        "val/move_left/000010.mp4",
    ]
