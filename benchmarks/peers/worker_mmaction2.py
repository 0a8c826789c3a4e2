"""Worker for MMAction2 1.2.0 with its own configuration files; without a GPU, SyncBN becomes BatchNorm."""

import importlib.metadata
import importlib.util
import logging
import sys
import time
import types
from pathlib import Path

import torch
from protocol import declare_torchvision, serve

declare_torchvision()
# `mmaction.models` imports this module, which the wheel lacks.
for name in ("drn", "drn.drn"):
    stub = sys.modules[f"mmaction.models.localizers.{name}"] = types.ModuleType(name)
    stub.DRN = None

from mmaction.utils import dependency  # noqa: E402

dependency.WITH_MULTIMODAL = False  # multimodal networks fail to import with current versions of transformers

import mmaction  # noqa: E402
from mmaction.registry import DATASETS, MODELS  # noqa: E402
from mmaction.structures import ActionDataSample  # noqa: E402
from mmaction.utils import register_all_modules  # noqa: E402
from mmengine import Config  # noqa: E402
from mmengine.dataset import pseudo_collate  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402

LR = 1e-6
CONFIGS = Path(mmaction.__file__).parent / ".mim/configs/recognition"
NAMES = {
    "tsn_1x1x3": "tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py",
    "i3d_32x2": "i3d/i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py",
    "tsm_1x1x8": "tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x8-100e_kinetics400-rgb.py",
    "slowfast_4x16": "slowfast/slowfast_r50_8xb8-4x16x1-256e_kinetics400-rgb.py",
    "slowfast_8x8": "slowfast/slowfast_r50_8xb8-8x8x1-256e_kinetics400-rgb.py",
    "slowonly_4x16": "slowonly/slowonly_r50_8xb16-4x16x1-256e_kinetics400-rgb.py",
    "slowonly_8x8": "slowonly/slowonly_r50_8xb16-8x8x1-256e_kinetics400-rgb.py",
    "r2plus1d_34_8x8": "r2plus1d/r2plus1d_r34_8xb8-8x8x1-180e_kinetics400-rgb.py",
    "r2plus1d_34_32x2": "r2plus1d/r2plus1d_r34_8xb8-32x2x1-180e_kinetics400-rgb.py",
}


def build(options):
    logging.disable(logging.WARNING)
    register_all_modules(init_default_scope=True)
    config = Config.fromfile(CONFIGS / NAMES[options["setting"]])
    device, batch_size = options["device"], options["batch_size"]
    config.model.backbone.pretrained = None
    if options["setting"].startswith("tsm"):
        config.model.backbone.pretrained2d = False
    if device == "cpu" and config.model.backbone.get("norm_cfg", {}).get("type") == "SyncBN":
        config.model.backbone.norm_cfg.type = "BN3d"
    model = MODELS.build(config.model)
    model.init_weights()
    model = model.to(device)
    # With the full learning rate and random inputs, activations become denormal numbers, which CPUs process a
    # hundred times more slowly than those of a real training.
    config.optim_wrapper.optimizer.lr = LR
    wrapper = dict(config.optim_wrapper)
    if options["precision"] != "float32":
        wrapper |= {"type": "AmpOptimWrapper", "dtype": options["precision"]}
    optimizer = build_optim_wrapper(model, wrapper)

    clips, frames, height, width = options["input"]
    is_image = type(model).__name__ == "Recognizer2D"
    shape = (frames, height, width, 3) if is_image else (1, frames, height, width, 3)

    def batch():
        generator = torch.Generator().manual_seed(0)
        inputs = [torch.randint(256, shape, generator=generator, dtype=torch.uint8) for _ in range(clips)]
        # `FormatShape` transposes decoded frames without a copy. The network then runs in channels-last
        # memory format, which is faster on CPUs.
        inputs = [clip.movedim(-1, 1) for clip in inputs]
        return {"inputs": inputs, "data_samples": [ActionDataSample().set_gt_label(0) for _ in inputs]}

    data = batch()

    def train():
        model.train()
        model.train_step({**data}, optimizer)

    @torch.no_grad()
    def infer():
        model.eval()
        model.test_step({**data})

    @torch.no_grad()
    def check(file):
        model.eval()
        clip = torch.randn(1, 3, frames, height, width, generator=torch.Generator().manual_seed(0))
        inputs = clip.transpose(1, 2) if is_image else clip[:, None]
        features, _ = model.extract_feat(inputs.to(device), test_mode=True)
        logits = model.cls_head(features, **({"num_segs": frames} if is_image else {}))
        torch.save({"state_dict": model.state_dict(), "clip": clip, "logits": logits.cpu()}, file)

    batches = None

    def video():
        nonlocal batches
        start = time.perf_counter()
        if batches is None:
            batches = endless()
        data = next(batches)
        waited = time.perf_counter() - start
        model.train()
        model.train_step(data, optimizer)
        return waited

    def endless():
        dataset = dict(config.train_dataloader.dataset)
        dataset |= {"ann_file": options["list"], "data_prefix": {"video": ""}}
        loader = torch.utils.data.DataLoader(
            DATASETS.build(dataset),
            batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=options["workers"],
            persistent_workers=True,
            collate_fn=pseudo_collate,
        )
        while True:
            yield from loader

    phases = {"train": train, "infer": infer, "check": check}
    if not importlib.util.find_spec("decord"):
        return phases | {"video": "decord is not installed"}
    return phases | ({"video": video} if options["list"] else {})


# Its heads convert logits to NumPy arrays, which have no bfloat16.
serve(f"MMAction2 {importlib.metadata.version('mmaction2')}", build, has_bfloat16=False)
