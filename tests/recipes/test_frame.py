"""Recipes of frame encoders, with the configuration of timm."""

import pytest

from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.models.frame_encoder import ImageConfig
from mmaction_lite.recipes import frame

CONFIG = ImageConfig(
    mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5), size=(96, 96), interpolation="bicubic", license=""
)


@pytest.fixture(autouse=True)
def without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "image_config", lambda name: CONFIG)


def test_size_and_normalization_are_those_of_the_image_model() -> None:
    recipe = frame.frame_recipe("some_model", num_frames=6)
    assert recipe.normalize == Normalize(mean=CONFIG.mean, std=CONFIG.std)
    assert recipe.train.view_shape == recipe.test.view_shape == (6, 96, 96, 3)
    assert recipe.model.arguments == {"image_model": "some_model"}
    assert recipe.train.interpolation == recipe.val.interpolation == recipe.test.interpolation == "bicubic"
    assert recipe.freeze == ("encoder",)
    assert frame.frame_recipe("some_model", size=64).test.view_shape == (8, 64, 64, 3)


def test_tsn_differs_in_the_network_only() -> None:
    recipe = frame.tsn_recipe("some_model")
    assert recipe.model.builder.__name__ == "tsn_timm"
    assert recipe.freeze == ("backbone",)
    assert recipe.test == frame.frame_recipe("some_model").test
