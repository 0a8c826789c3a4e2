from dataclasses import replace

import numpy as np
import pytest
import torch

from mmaction_lite.data.sources.resample import crop_and_resize
from mmaction_lite.data.sources.source import ArrayVideo, open_source
from mmaction_lite.data.views.augment import ColorJitter, RandomErasing
from mmaction_lite.data.views.crops import CenterCrop, RandomCrop, RandomResizedCrop, ScaleJitterCrop
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import DenseClips, PySlowFastClips, TimedClips
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.errors import UserError

PLAIN = TrainViews(
    clips=DenseClips(clip_len=4, frame_interval=2, num_clips=2), crop=RandomCrop(size=(20, 28))
)


@pytest.fixture
def video():
    return ArrayVideo(np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8), fps=30.0)


def draw(views, source, seed=0):
    return views.draw_views(source, np.random.default_rng(seed), np.random.default_rng(seed + 1000))


def test_new_settings_do_not_touch_other_draws(video):
    plain = draw(PLAIN, video)
    assert not plain.reversals.any()
    rng, indices = np.random.default_rng(1000), PLAIN.clips(30, np.random.default_rng(0))
    for clip in range(2):  # per clip a box and a flip, and nothing else
        (placement,) = PLAIN.crop.plan(48, 64, rng)
        assert plain.flips[clip] == (rng.random() < PLAIN.flip)
        assert (plain.pixels[clip] == video.frames(indices[clip], placement.box)).all()
    assert (draw(replace(PLAIN, augment=(ColorJitter(),)), video).pixels[0] == plain.pixels[0]).all()


def test_reversed_views_run_backwards_and_say_so(video):
    for seed in range(5):
        forwards = draw(replace(PLAIN, clips=DenseClips(clip_len=4)), video, seed)
        backwards = draw(replace(PLAIN, clips=DenseClips(clip_len=4), reverse=1.0), video, seed)
        assert backwards.reversals.all()
        assert (backwards.pixels == forwards.pixels[:, ::-1]).all()
    drawn = np.concatenate([draw(replace(PLAIN, reverse=0.3), video, s).reversals for s in range(200)])
    assert 0.22 < drawn.mean() < 0.38


@pytest.mark.parametrize("short_side", [None, 32])
@pytest.mark.parametrize("crop", [RandomCrop, RandomResizedCrop, ScaleJitterCrop])
def test_repeats_are_views_of_the_same_clip_resampled_once(video, short_side, crop):
    one = replace(PLAIN, crop=crop(size=(20, 28)), short_side=short_side)
    views = replace(one, repeats=3)
    drawn = draw(views, video)
    assert drawn.pixels.shape == (6, *views.view_shape)
    assert drawn.flips.shape == drawn.reversals.shape == (6,)
    rng, indices = np.random.default_rng(1000), views.clips(30, np.random.default_rng(0))
    for clip in range(2):
        plans = [views.crop.plan(*((32, 43) if short_side else (48, 64)), rng)[0] for _ in range(3)]
        rng.random(3)  # flips
        for repeat, (box, size, _) in enumerate(plans):
            source = video
            if short_side:
                source = ArrayVideo(video.frames(range(30), None, (32, 43)))
            expected = source.frames(indices[clip], box, size)
            assert (drawn.pixels[3 * clip + repeat] == expected).all()


def test_repeats_decode_a_clip_once(tiny):
    class Counting:
        """A source that counts how often it is read."""

        def __init__(self, source):
            self.source, self.fps, self.size, self.reads = source, source.fps, source.size, 0

        def __len__(self):
            return len(self.source)

        def frames(self, *arguments):
            self.reads += 1
            return self.source.frames(*arguments)

    with open_source(next((tiny / "train").rglob("*.mp4"))) as source:
        counting = Counting(source)
        views = replace(PLAIN, repeats=4)
        drawn = draw(views, counting)
        assert counting.reads == 2
        (box, _, _) = views.crop.plan(48, 64, np.random.default_rng(1000))[0]
        expected = source.frames(views.clips(len(source), np.random.default_rng(0))[0], box)
        assert (drawn.pixels[0] == expected).all()


def test_pixel_transforms_follow_in_their_order(video):
    erase = RandomErasing(probability=1.0)
    jitter = ColorJitter(brightness=0.5)
    views = replace(PLAIN, clips=DenseClips(clip_len=4), augment=(jitter, erase), flip=1.0)
    drawn = draw(views, video)
    rng = np.random.default_rng(1000)
    box = views.crop.plan(48, 64, rng)[0].box
    rng.random()
    indices = views.clips(30, np.random.default_rng(0))[0]
    pixels = video.frames(indices, box)[:, :, ::-1]
    assert (drawn.pixels[0] == erase(jitter(pixels, rng), rng)).all()


@pytest.mark.parametrize(
    "clips",
    [TimedClips(clip_len=4, target_fps=10, num_clips=2), PySlowFastClips(clip_len=4, frame_interval=2)],
)
def test_timed_samplers_receive_the_frame_rate_of_the_video(video, clips):
    views = TestViews(clips=clips, crop=CenterCrop(size=(20, 28)))
    for fps in (15.0, 30.0):
        source = ArrayVideo(video.pixels, fps)
        assert (views.read(source) == video.pixels[clips(30, fps=fps)]).all()
    drawn = draw(TrainViews(clips=clips, crop=RandomCrop(size=(48, 64))), video)
    assert (drawn.pixels == video.pixels[clips(30, np.random.default_rng(0), fps=30.0)]).all()
    with pytest.raises(UserError, match="frame rate is nan"):
        views.read(ArrayVideo(video.pixels, float("nan")))


def test_the_protocol_line_states_the_spacing():
    def line(clips):
        return str(Protocol(views=TestViews(clips=clips, crop=CenterCrop(size=(224, 224)), short_side=256)))

    plain = line(DenseClips(clip_len=8, frame_interval=8))
    assert plain == (
        "8x8x1 frames: 1 clip × 1 crop (CenterCrop 224x224 of short side 256, antialias on), "
        "probabilities averaged"
    )
    assert "short videos held at their last frame" in line(
        DenseClips(clip_len=8, frame_interval=8, short="hold")
    )
    assert "spaced as PySlowFast does at 30 fps" in line(PySlowFastClips(clip_len=8, frame_interval=8))
    assert "16x5 at 15 fps" in line(TimedClips(clip_len=16, target_fps=15, num_clips=5))


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match=r"reverse is 1\.5; expected a probability"):
        replace(PLAIN, reverse=1.5)
    with pytest.raises(UserError, match="repeats is 0; expected an integer, at least 1"):
        replace(PLAIN, repeats=0)


def test_bicubic_views_resize_once_and_name_their_filter(video):
    crop = RandomResizedCrop(size=(20, 28))
    for short_side, repeats in ((None, 1), (None, 2), (32, 1)):
        views = replace(PLAIN, crop=crop, short_side=short_side, repeats=repeats, interpolation="bicubic")
        drawn, rng = draw(views, video), np.random.default_rng(1000)
        frames = video.frames(views.clips(30, np.random.default_rng(0))[0])
        if short_side:
            frames = crop_and_resize(frames, None, (32, 43), interpolation="bicubic")
        placements = [crop.plan(*frames.shape[1:3], rng)[0] for _ in range(repeats)]
        expected = crop_and_resize(frames, placements[0].box, (20, 28), interpolation="bicubic")
        assert (drawn.pixels[0] == expected).all()
        assert (drawn.pixels[0] != draw(replace(views, interpolation="bilinear"), video).pixels[0]).any()
    test = TestViews(
        clips=PLAIN.clips, crop=CenterCrop(size=(20, 28)), short_side=24, interpolation="bicubic"
    )
    whole = video.frames(test.indices(video).reshape(-1))
    expected = crop_and_resize(whole, None, (24, 32), interpolation="bicubic")
    assert (test.read(video).reshape(expected.shape) == expected).all()
    assert "(CenterCrop 20x28 of short side 24, bicubic, antialias on)" in str(Protocol(views=test))
    with pytest.raises(UserError, match="interpolation is 'cubic'; expected one of 'bilinear', 'bicubic'"):
        replace(test, interpolation="cubic")


@pytest.mark.parametrize("antialias", [True, False])
def test_crops_of_small_frames_are_enlarged_with_the_kernel_of_the_views(video, antialias):
    views = TestViews(
        clips=PLAIN.clips, crop=CenterCrop(size=(96, 96)), antialias=antialias, interpolation="bicubic"
    )
    clips = views.read(video)
    square = clips.reshape(-1, 48, 64, 3)[:, :, 8:56]
    expected = crop_and_resize(square, None, (96, 96), antialias=antialias, interpolation="bicubic")
    found = views.crops(torch.from_numpy(clips)).numpy()
    assert (found.reshape(expected.shape) == expected).all()
