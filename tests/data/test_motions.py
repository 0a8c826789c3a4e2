import subprocess
import sys
import zlib
from functools import cache

import av
import numpy as np
import pytest
from PIL import Image

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.generated import motions
from mmaction_lite.data.generated.motions import CLASSES, FRAMES, generate, render
from mmaction_lite.errors import UserError

SMALL = {"train": range(10), "val": range(10, 12), "test": range(20, 22)}


@cache
def clip(number):
    return render(number)


def object_mask(frame):
    """Pixels brighter than any background."""
    return frame.min(axis=2) > 110


def test_a_number_is_a_clip_on_every_machine():
    checksums = [zlib.crc32(render(number).tobytes()) for number in (0, 5, 6, 9, 123)]
    assert checksums == [2699439359, 765891217, 2507912698, 1979000837, 807875248]
    assert render(7).shape == (64, 96, 128, 3)
    assert render(7).dtype == np.uint8


@pytest.mark.parametrize("pair", range(5))
def test_single_frames_do_not_reveal_the_class(pair):
    """At every moment the first class looks, in distribution, like the second at the mirrored moment."""
    first, second = (profiles(2 * pair + odd) for odd in (0, 1))
    assert deviation(first, second[:, ::-1]) < 4.5
    # These numbers do tell the classes apart when both are shown forwards, the turn's excepted: it moves
    # the object less than objects lie apart.
    if pair != 2:
        assert deviation(first, second) > 6


def profiles(label, clips=12):
    """(clips, moments, 3): area, mean row and mean column of the bright pixels."""
    rows, columns = np.mgrid[:96, :128]
    table = []
    for number in range(label, 10 * clips, 10):
        masks = [object_mask(frame) for frame in (clip(number)[t] for t in (0, 21, 42, 63))]
        table.append([(m.sum(), (m * rows).sum() / 1e3, (m * columns).sum() / 1e3) for m in masks])
    return np.array(table)


def deviation(a, b):
    """The largest difference of two means, in standard errors."""
    error = np.sqrt(a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b))
    return float((abs(a.mean(0) - b.mean(0)) / error).max())


@pytest.mark.parametrize("label", range(10))
def test_the_object_moves_as_its_class_states(label):
    measured = [change(clip(number), label // 2) for number in range(label, 120, 10) if alone(clip(number))]
    assert len(measured) >= 4
    expected = {
        "move_left": -1, "move_right": 1, "move_up": -1, "move_down": 1, "rotate_clockwise": 1,
        "rotate_counterclockwise": -1, "shrink": -1, "grow": 1, "vanish": -1, "appear": 1,
    }  # fmt: skip
    right = np.mean(np.sign(measured) == expected[CLASSES[label]])
    assert right >= (0.9 if label // 2 == 2 else 1)  # a distractor close by bends the axis of the outline


def alone(frames):
    """Whether no distractor is in sight: every bright pixel lies close to the middle of all of them."""
    points = max((np.argwhere(object_mask(frames[t])) for t in (0, -1)), key=len)
    return abs(points - points.mean(0)).max() < 36


def change(frames, pair):
    """Of the object from the first to the last frame: columns, rows, degrees clockwise or pixels of area."""
    masks = [np.argwhere(object_mask(frames[t])) for t in range(0, FRAMES, 7)]
    if pair == 2:
        angles = np.array([axis(points) for points in masks])
        turns = np.diff(angles)
        return ((turns + 90) % 180 - 90).sum()
    if pair > 2:
        return len(masks[-1]) - len(masks[0])
    return (masks[-1].mean(0) - masks[0].mean(0))[1 - pair]


def axis(points):
    """Direction of the longest extent, degrees clockwise from the right, modulo 180."""
    (rows, mixed), (_, columns) = np.cov(points.T)
    return np.degrees(np.arctan2(2 * mixed, columns - rows)) / 2


def test_contrast_pulls_objects_towards_the_background():
    brightness = [render(8, contrast)[0].max() for contrast in (0.1, 0.5, 1.0)]
    assert brightness[2] >= 170
    assert brightness[0] < brightness[1] < brightness[2]
    background = np.median(render(8), axis=(0, 1, 2))
    assert ((background > 40) & (background < 100)).all()


def test_video_set(tmp_path):
    seen = []
    generate(tmp_path / "set", splits=SMALL, workers=2, progress=lambda *numbers: seen.append(numbers))
    assert seen == [(done, 14) for done in range(15)]
    assert (tmp_path / "set/train.txt").read_text().splitlines()[3] == "train/move_down/000003.mp4 3"
    samples = read_split(tmp_path / "set", "test")
    assert samples.classes == CLASSES
    assert [samples.path(i).stem for i in range(2)] == ["000020", "000021"]
    with av.open(samples.path(1)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 25)
        frames = list(container.decode(stream))
    assert [t for t, frame in enumerate(frames) if frame.key_frame] == [0, 16, 32, 48]
    decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    assert abs(decoded.astype(int) - render(21)).mean() < 4


def test_frames_set(tmp_path):
    generate(tmp_path, form="frames", splits={"train": range(2)}, workers=0)
    assert (
        tmp_path / "train.txt"
    ).read_text() == "train/move_left/000000 64 0\ntrain/move_right/000001 64 1\n"
    names = sorted(path.name for path in (tmp_path / "train/move_right/000001").iterdir())
    assert names == [f"{number:05d}.jpg" for number in range(1, 65)]
    with Image.open(tmp_path / "train/move_right/000001/00064.jpg") as image:
        assert abs(np.asarray(image).astype(int) - render(1)[-1]).mean() < 4
    assert read_split(tmp_path, "train").labels.tolist() == [0, 1]


def test_an_interrupted_generation_resumes(tmp_path, monkeypatch):
    write = motions.write_video

    def stop_in_the_third_clip(path, frames):
        write(path, frames)
        if path.stem == "000002":
            raise KeyboardInterrupt

    monkeypatch.setattr(motions, "write_video", stop_in_the_third_clip)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, splits={"train": range(4)}, workers=0)
    complete = sorted((tmp_path / "train").rglob("*.mp4"))
    assert [path.stem for path in complete] == ["000000", "000001"]
    times = [path.stat().st_mtime_ns for path in complete]

    monkeypatch.undo()
    seen = []
    generate(tmp_path, splits={"train": range(4)}, workers=0, progress=lambda *numbers: seen.append(numbers))
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert [path.stat().st_mtime_ns for path in complete] == times
    assert {path.name for path in tmp_path.iterdir()} == {"classes.txt", "motions.json", "train", "train.txt"}


def test_refused_folders_are_unchanged(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match="mine: is not empty and not a motions data set"):
        generate(tmp_path / "mine", workers=0)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]

    with pytest.raises(UserError, match=r"thesis.txt: cannot be written \(Not a directory\)"):
        generate(tmp_path / "mine/thesis.txt", workers=0)
    with pytest.raises(UserError, match=r"contrast 1.5: expected"):
        generate(tmp_path / "new", contrast=1.5)
    assert not (tmp_path / "new").exists()

    generate(tmp_path / "set", splits={"train": range(1)}, workers=0)
    with pytest.raises(UserError, match=r'clips of {"form": "video", "contrast": 1.0}; expected .*0.5'):
        generate(tmp_path / "set", contrast=0.5, splits={"train": range(1)}, workers=0)


def test_workers_start_without_torch():
    code = "import sys, mmaction_lite.data.generated.motions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("number", [0, 1, 3, 6, 9])
def test_the_object_lies_in_its_circle(number):
    """Outside of it, the clip differs from frame to frame by the motion of the camera only."""
    rows, columns = np.mgrid[:96, :128]
    for frame, (x, y, radius, opacity) in zip(render(number), motions.object_circles(number), strict=True):
        inside = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
        bright = object_mask(frame)
        assert opacity != 1 or 0.15 < bright[inside].mean() < 0.8
        assert bright[~inside].sum() < 0.3 * bright.sum() + 150  # a distractor
