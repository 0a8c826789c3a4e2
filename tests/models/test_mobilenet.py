"""MobileNetV2 with temporal shift."""

from typing import Any

import pytest
import torch

from mmaction_lite import models
from mmaction_lite.models.mobilenet import InvertedResidual, MobileNetV2
from mmaction_lite.weights.converters import mit_tsm, mmaction2, torchvision


def mobilenet_names(project: str) -> list[str]:
    """The names of MobileNetV2's entries in a project, from how it nests the layers."""
    entries = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    norm = entries if project else ()
    names = []

    def add(conv: str, bn: str) -> None:
        names.extend([f"{conv}.weight", *(f"{bn}.{entry}" for entry in norm)])

    counts = (1, 2, 3, 4, 3, 3, 1)
    if project == "mmaction2":
        add("backbone.conv1.conv", "backbone.conv1.bn")
        for stage, count in enumerate(counts, 1):
            for block in range(count):
                for layer in range(2 if stage == 1 else 3):
                    place = f"backbone.layer{stage}.{block}.conv.{layer}"
                    place += ".net" if layer == 0 and block > 0 else ""
                    add(f"{place}.conv", f"{place}.bn")
        add("backbone.conv2.conv", "backbone.conv2.bn")
        return [*names, "cls_head.fc_cls.weight", "cls_head.fc_cls.bias"]
    base = "base_model." if project == "mit_tsm" else ""
    add(f"{base}features.0.0", f"{base}features.0.1")
    for number in range(1, 18):
        place = f"{base}features.{number}.conv"
        for layer in range(2 if number == 1 else 3):
            last = layer == (1 if number == 1 else 2)
            if project == "mit_tsm":
                shifted = ".net" if number in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16) and layer == 0 else ""
                add(f"{place}.{3 * layer}{shifted}", f"{place}.{3 * layer + 1}")
            elif last:
                add(f"{place}.{layer}", f"{place}.{layer + 1}")
            else:
                add(f"{place}.{layer}.0", f"{place}.{layer}.1")
    add(f"{base}features.18.0", f"{base}features.18.1")
    head = "new_fc" if project == "mit_tsm" else "classifier.1"
    return [*names, f"{head}.weight", f"{head}.bias"]


@pytest.mark.parametrize("table", [torchvision, mit_tsm, mmaction2])
def test_every_projects_mobilenet_has_its_place(table: Any) -> None:
    names = mobilenet_names(table.__name__.rpartition(".")[2])
    with torch.device("meta"):
        ours = models.tsm_mobilenetv2().state_dict()
    assert table.matches(names)
    renamed = table.rename(names)
    # In every project the layers are listed in the order in which they compute, and in ours.
    assert [renamed[name] for name in names] == [*ours]


def test_channels_and_size_of_the_features():
    backbone = MobileNetV2(16, shift_div=8).eval()
    assert backbone.features == 640  # half of the paper's 1280
    with torch.no_grad():
        assert backbone(torch.zeros(4, 3, 64, 96), 2).shape == (4, 640, 2, 3)


@pytest.mark.parametrize(
    ("channels", "stride", "has_shortcut"), [(8, 1, True), (16, 1, False), (8, 2, False)]
)
def test_blocks_of_the_same_shape_have_a_shortcut_and_shift(channels, stride, has_shortcut):
    block = InvertedResidual(8, channels, stride, 6, shift_div=8)
    assert block.has_shortcut == has_shortcut
    assert getattr(block.convolutions[0], "share", 0) == (1 if has_shortcut else 0)
