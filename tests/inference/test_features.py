"""Features equal forward hooks on the views of the protocol, for whole videos, views and windows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmaction_lite import load
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.data.views.crops import ThreeCrop
from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.inference.features import (
    Extractor,
    FeatureSettings,
    extract_features,
    layers_of,
)
from mmaction_lite.inference.windows import Windows, read_windows
from mmaction_lite.weights.card import ModelCard, card_of, save_weights
from mmaction_lite.weights.fingerprint import fingerprint_of_weights
from tests.conftest import brightening, write_video

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(recipe, tmp_path):
    """A model whose protocol has 3 clips of 4 frames and 3 crops."""
    clips = DenseClips(clip_len=4, frame_interval=2, num_clips=3)
    views = replace(recipe.test, clips=clips, crop=ThreeCrop(size=(24, 24)))
    card = ModelCard.of(replace(recipe, test=views), ("down", "up"))
    torch.manual_seed(0)
    save_weights(tmp_path / "weights.safetensors", card.build().state_dict(), card)
    return load(tmp_path / "weights.safetensors")


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "clip.mp4", brightening(1, 40))
    return tmp_path / "clip.mp4"


def inputs(model, path) -> torch.Tensor:
    protocol = card_of(model).test
    with open_source(path) as source:
        return protocol.prepare(torch.from_numpy(protocol.read(source)))


@torch.no_grad()
def test_the_default_is_the_mean_of_the_head_input_over_views(model, video):
    x = inputs(model, video)
    assert len(x) == 9
    expected = model.features(x).mean(1)
    found = extract_features(model, video)
    assert found.values.shape == (1, 64)
    assert found.values.dtype == np.float32
    np.testing.assert_allclose(found.values[0], expected.mean(0), rtol=1e-4, atol=1e-5)
    assert (found.start_seconds[0], found.end_seconds[0]) == (0, pytest.approx(1.6))
    assert (found.first_frame[0], found.end_frame[0]) == (0, 40)
    assert found.videos == (str(video),)
    assert found.info["layer"] == "head input"
    assert found.protocol_line.endswith(
        "3 clips × 3 crops (ThreeCrop 24x24 of short side 24, antialias on), features averaged over views"
    )

    each = extract_features(model, video, per_view=True)
    np.testing.assert_allclose(each.values, expected, rtol=1e-4, atol=1e-5)
    assert each.first_frame.tolist() == [0, 0, 0, 16, 16, 16, 33, 33, 33]
    assert each.end_frame.tolist() == [7, 7, 7, 23, 23, 23, 40, 40, 40]
    assert each.end_seconds[3] == pytest.approx(23 / 25)


@torch.no_grad()
def test_a_layer_is_a_forward_hook_on_the_views(model, video):
    found = []
    handle = model.backbone.layer2.register_forward_hook(lambda *values: found.append(values[-1].clone()))
    model(inputs(model, video))
    handle.remove()
    clips = torch.stack([part.transpose(0, 1) for part in found[0].chunk(9)]).mean(0)
    for pool, axes in {"all": (1, 2, 3), "time": (1,), "space": (2, 3), "none": ()}.items():
        expected = clips.mean(axes) if axes else clips
        row = extract_features(model, video, "backbone.layer2", pool=pool).values[0]
        assert row.shape == expected.shape
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)
    rows = {row.name: row.shape for row in layers_of(model)}
    assert rows["backbone.layer2"] == clips.shape


@torch.no_grad()
def test_windows_are_those_of_the_timeline(model, video):
    found = extract_features(model, video, stride=0.4, window=0.5, half=True)
    assert found.values.dtype == np.float16
    assert found.start_seconds.tolist() == pytest.approx([0, 0.4, 0.8, 1.2])
    assert found.end_seconds.tolist() == pytest.approx([0.5, 0.9, 1.3, 1.6])
    assert "1 clip × 3 crops" in found.protocol_line
    assert found.protocol_line.endswith("windows of 0.5 s every 0.4 s, features averaged over crops")
    with open_source(video) as source:
        plan = Windows(seconds=0.5, stride=0.4).plan(card_of(model).test, source.fps)
        windows = list(read_windows(source, plan))
    for row, window in enumerate(windows):
        x = plan.protocol.prepare(torch.from_numpy(window.clips))
        expected = model.features(x).mean((0, 1)).half()
        np.testing.assert_allclose(found.values[row], expected, rtol=1e-2, atol=1e-3)
        assert (found.first_frame[row], found.end_frame[row]) == (window.first_frame, window.end_frame)
    default = extract_features(model, video, stride=0.4)
    assert "windows of one clip every 0.4 s" in default.protocol_line


def test_videos_of_any_kind_and_length(model, video, tmp_path):
    pixels = brightening(0, 1)
    one, several = extract_features(model, [pixels, brightening(0, 3)], stride=0.2, window=0.1)
    assert (one.videos, len(one)) == (("<array 0>",), 1)
    assert one.end_seconds[0] == pytest.approx(0.04)
    assert len(several) == 1
    write_video(tmp_path / "one.mp4", pixels)
    assert len(extract_features(model, tmp_path / "one.mp4", stride=1.0)) == 1
    # Frames of images have no frame rate.
    from PIL import Image

    (tmp_path / "frames").mkdir()
    for number in range(5):
        Image.fromarray(brightening(0, 5)[number]).save(tmp_path / "frames" / f"{number}.png")
    frames = extract_features(model, tmp_path / "frames")
    assert np.isnan(frames.end_seconds[0])
    assert frames.end_frame[0] == 5
    with pytest.raises(VideoError, match=r"frames: .*frame rate"):
        extract_features(model, tmp_path / "frames", stride=1.0)


def test_a_folder_of_videos_gives_a_list(model, video):
    (found,) = extract_features(model, [video.parent / "*.mp4"])
    assert isinstance(extract_features(model, str(video.parent / "*.mp4")), list)
    one = extract_features(model, video.read_bytes())
    assert one.videos == ("<bytes 0>",)
    np.testing.assert_array_equal(found.values, one.values)
    assert found.videos == (str(video),)


def test_settings_that_contradict_each_other_are_an_error(model, video):
    with pytest.raises(UserError, match="a window length is given without a stride"):
        FeatureSettings(window=2.0)
    with pytest.raises(UserError, match="expected either a stride or per_view"):
        FeatureSettings(stride=1.0, per_view=True)
    with pytest.raises(UserError, match=r"pool is 'max'; expected one of"):
        extract_features(model, video, pool="max")
    with pytest.raises(UserError, match=r"has no layer 'layer1'; nearest: backbone\.layer1"):
        extract_features(model, video, "layer1")


def test_values_that_float16_cannot_store_are_an_error(model, video):
    with torch.no_grad():
        model.backbone.layer4[0].bn2.weight *= 1e6
    assert np.isfinite(extract_features(model, video).values).all()
    with pytest.raises(VideoError, match=r"clip\.mp4: the features are not finite in float16; omit --half"):
        extract_features(model, video, half=True)


def test_the_fingerprint_depends_on_weights_protocol_and_settings(model, recipe):
    info = Extractor(model, FeatureSettings()).info
    assert info["weights"] == fingerprint_of_weights(model)
    found = {info["fingerprint"]}
    others = [{"layer": "fc"}, {"pool": "none"}, {"stride": 1.0}, {"stride": 1.0, "window": 2.0}]
    for other in [*others, {"per_view": True}, {"half": True}]:
        settings = FeatureSettings(**other)
        info = Extractor(model, settings).info
        assert FeatureSettings.of_info(info) == settings
        found.add(info["fingerprint"])
    model.card = replace(card_of(model), test=replace(card_of(model).test, average="score"))
    found.add(Extractor(model, FeatureSettings()).info["fingerprint"])
    with torch.no_grad():
        model.fc.bias[0] += 1
    found.add(Extractor(model, FeatureSettings()).info["fingerprint"])
    assert len(found) == 9
