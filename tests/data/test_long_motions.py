"""Generated long videos hold the actions at the stated times; `timeline` finds them."""

import pytest

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.generated import motions
from mmaction_lite.data.generated.long_motions import FORM, generate_long, generate_long_set
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


def test_a_set_of_long_videos_is_kept_when_complete(tmp_path, monkeypatch):
    """Every clip of a split is in one of its videos."""
    monkeypatch.setattr(motions, "SPLITS", {"train": range(4), "test": range(600, 601)})
    seconds = {"train": (12.0, 12.0), "test": (3.0,)}
    (tmp_path / motions.MARK).write_text(FORM)
    (tmp_path / "train-0.mp4").write_text("incomplete")
    generate_long_set(tmp_path, seconds=seconds, workers=0)
    samples = read_split(tmp_path, "train")
    assert {samples.paths[i] for i in range(len(samples))} == {"train-0.mp4", "train-1.mp4"}
    assert {samples.class_names(i)[0] for i in range(len(samples))} == set(motions.CLASSES[:4])
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.mp4")}
    (tmp_path / "test.csv").unlink()
    generate_long_set(tmp_path, seconds=seconds, workers=0)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.mp4")}
    assert {name for name in after if after[name] != before[name]} == {"test-0.mp4"}


def test_other_files_are_kept(tmp_path):
    (tmp_path / "train-0.mp4").write_text("mine")
    with pytest.raises(UserError, match="is not empty and not a motions data set"):
        generate_long_set(tmp_path, seconds={"train": (3.0,)}, workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["train-0.mp4"]
    (tmp_path / motions.MARK).write_text('{"form": "video", "contrast": 1.0}\n')
    with pytest.raises(UserError, match=r'expected \{"form": "long"\}'):
        generate_long_set(tmp_path, seconds={"train": (3.0,)}, workers=0)
    assert (tmp_path / "train-0.mp4").read_text() == "mine"
