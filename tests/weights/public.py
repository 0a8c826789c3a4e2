"""Thin checkpoints in place of the public weights, on a mirror on this machine."""

import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from mmaction_lite.models import tsm_r50
from mmaction_lite.weights import catalogue, named
from mmaction_lite.weights.catalogue import WeightsEntry
from tests.weights.server import Server, serve


def use_cache(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Set the cache folder, permit http, and unset proxies and mirrors."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith("MMACTION_LITE_"):
            patch.delenv(name)
    patch.setenv("MMACTION_LITE_CACHE", str(folder))
    patch.setenv("MMACTION_LITE_ALLOW_HTTP", "1")


def publisher(server: Server, patch: pytest.MonkeyPatch) -> Callable[..., WeightsEntry]:
    """A function that puts a checkpoint on a mirror as the file of a catalogue entry.

    The entry gets the hash of this file and the changed fields.
    """
    entries = dict(catalogue.catalogue())
    patch.setattr(catalogue, "catalogue", lambda: entries)
    patch.setattr(named, "catalogue", lambda: entries)
    patch.setenv("MMACTION_LITE_MIRROR", server.address)

    def put(name: str, checkpoint: Any, **changes: Any) -> WeightsEntry:
        data = io.BytesIO()
        torch.save(checkpoint, data)
        digest = sha256(data.getvalue()).hexdigest()
        url = urlsplit(entries[name].url)
        server.files[f"/{url.netloc}{url.path}"] = data.getvalue()
        entries[name] = dataclasses.replace(
            entries[name], **{"sha256": entries[name].sha256 and digest} | changes
        )
        return entries[name]

    return put


@contextmanager
def public_weights(cache: Path) -> Iterator[None]:
    """Serve thin checkpoints under the names that the documentation uses."""
    with serve() as server, pytest.MonkeyPatch.context() as patch:
        use_cache(cache, patch)
        put = publisher(server, patch)
        thin = {"arguments": {"width": 8}}
        put("resnet50@torchvision", image_weights(), **thin)
        put("tsm_r50_1x1x8_50e_kinetics400_rgb@mit", small_tsm(), **thin)
        for epochs in (50, 100):
            name = f"tsm_r50_1x1x8_{epochs}e_kinetics400_rgb@mmaction2"
            put(name, in_mmaction2(small_tsm()), **thin)
        yield


def small_tsm(num_classes: int = 400) -> dict:
    """A thin TSM under the names of its authors' repository."""
    torch.manual_seed(0)
    ours = tsm_r50(num_classes=num_classes, width=8).state_dict()
    theirs = {
        re.sub(r"^backbone\.(layer\d\.\d+\.conv1)\.", r"module.base_model.\1.net.", name)
        .replace("backbone.", "module.base_model.")
        .replace("fc.", "module.new_fc."): value
        for name, value in ours.items()
    }
    return {"epoch": 50, "state_dict": {k.replace("module.module.", "module."): v for k, v in theirs.items()}}


def image_weights() -> dict:
    """A thin ResNet-50 under torchvision's names."""
    ours = tsm_r50(num_classes=1000, width=8).state_dict()
    return {name.removeprefix("backbone."): value for name, value in ours.items()}


def in_mmaction2(checkpoint: dict) -> dict:
    """The same weights under MMAction2's names."""
    renamed = {}
    for key, value in checkpoint["state_dict"].items():
        name = key.removeprefix("module.").replace("base_model.", "backbone.")
        name = re.sub(r"\bconv(\d)\.(?:net\.)?(?=weight)", lambda m: m[0] + "CONV", name)
        name = name.replace("net.CONV", "net.conv.").replace(".CONV", ".conv.")
        name = re.sub(r"\bbn(\d)\.", r"conv\1.bn.", name)
        name = name.replace("downsample.0.", "downsample.conv.").replace("downsample.1.", "downsample.bn.")
        renamed[name.replace("new_fc.", "cls_head.fc_cls.")] = value
    return {"meta": {"epoch": 50}, "state_dict": renamed}
