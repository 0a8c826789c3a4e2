"""Normalization of each project, and the settings that its checkpoints store."""

import pytest
import torch

from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.recipes import list_recipes
from mmaction_lite.weights.converters import TABLES, sources
from mmaction_lite.weights.converters.sources import StoredSettings, source_normalize, stored_settings

MMACTION2 = """
model = dict(
    type='Recognizer2D',
    backbone=dict(
        type='ResNetTSM', depth=50, norm_eval=False, shift_div=8, non_local=((0, 0, 0), (1, 0)),
        non_local_cfg=dict(sub_sample=True, use_scale=False, mode='gaussian'), style='caffe'),
    cls_head=dict(type='TSMHead', num_classes=400))
img_norm_cfg = dict(mean=[104, 117, 128.5], std=[1, 1, 1.5], to_bgr=True)
"""
PYSLOWFAST = """
DATA:
  INPUT_CHANNEL_NUM:
  - 3
  - 3
  MEAN:
  - 0.5
  - 0.25
  - 0.45
  REVERSE_INPUT_CHANNEL: true
  STD:
  - 0.225
  - 0.225
  - 0.2
MODEL:
  ARCH: slowfast
SLOWFAST:
  ALPHA: 8
  BETA_INV: 8
"""


@pytest.mark.parametrize(
    ("source", "keys", "mean", "std"),
    [
        ("MMAction2", (), (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        ("PySlowFast", (), (0.45 * 255,) * 3, (0.225 * 255,) * 3),
        ("PyTorchVideo", (), (0.45 * 255,) * 3, (0.225 * 255,) * 3),
        ("MIT TSM", (), (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
        ("torchvision", (), (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
        *(
            (name, (), (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255))
            for name in ("VideoMAE", "VideoMAE of transformers")
        ),
        (
            "torchvision",
            ("stem.0.weight",),
            (0.43216 * 255, 0.394666 * 255, 0.37645 * 255),
            (0.22803 * 255, 0.22145 * 255, 0.216989 * 255),
        ),
    ],
)
def test_published_values(source, keys, mean, std):
    found = source_normalize(source, keys, StoredSettings())
    assert found is not None
    torch.testing.assert_close((found.mean, found.std), (mean, std))


def test_every_project_has_a_normalization():
    assert set(sources.NORMALIZE) == {table.NAME for table in TABLES}
    assert source_normalize("mmaction-lite", (), StoredSettings()) is None
    assert {recipe.normalize for recipe in list_recipes().values()} == {sources.IMAGENET, sources.PYSLOWFAST}


@pytest.mark.parametrize("key", ["cfg", "config"])
def test_settings_in_files_of_mmaction2(key):
    settings = stored_settings({"meta": {key: MMACTION2}})
    assert settings == StoredSettings(
        normalize=Normalize(mean=(128.5, 117, 104), std=(1.5, 1, 1)),  # stored in the order BGR
        is_bgr=True,
        backbone="ResNetTSM",
        shift_div=8,
        non_local="gaussian",
        style="caffe",
    )
    assert source_normalize("MMAction2", (), settings) == settings.normalize


def test_settings_in_files_of_pyslowfast():
    settings = stored_settings({"cfg": PYSLOWFAST})
    assert settings.normalize == Normalize(mean=(127.5, 63.75, 114.75), std=(57.375, 57.375, 51.0))
    assert (settings.alpha, settings.is_bgr) == (8, True)
    assert stored_settings({"cfg": PYSLOWFAST.replace("slowfast", "i3d")}).alpha is None


def test_settings_in_folders_of_the_hub():
    preprocessor = {
        "image_mean": [0.5, 0.25, 0.5],
        "image_std": [1, 1, 1],
        "size": {"shortest_edge": 292},
        "crop_size": {"height": 256, "width": 224},
    }
    settings = stored_settings({"preprocessor": preprocessor, "config": {"num_frames": 32}})
    assert settings == StoredSettings(
        normalize=Normalize(mean=(127.5, 63.75, 127.5), std=(255, 255, 255)),
        short_side=292,
        crop=(256, 224),
        clip_len=32,
    )


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"config": {"num_frames": "16"}, "preprocessor": {"size": "224", "crop_size": [1, 2]}},
        {},
        {"meta": 3, "cfg": {}},
        {"meta": {"config": 3}},
        {"meta": {"config": "mean=[1, 2]\nstd=[0, 0, 0]"}},
        {"cfg": "MEAN:\n  - 1"},
        {"cfg": "\n  MEAN:\n  - 1\n  - ...\n  - 1\n"},
        {"meta": {"config": "mean=[1, 2, 3] std=[1, 0, 1]"}},
    ],
)
def test_other_content_has_no_settings(checkpoint):
    assert stored_settings(checkpoint) == StoredSettings()
