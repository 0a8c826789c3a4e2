"""Worker for MIT's TSM from a checkout, which the benchmark puts on PYTHONPATH; the project has no package.

Its `main.py` runs on GPUs only and wraps the network in `DataParallel`; the steps here do the same without.
"""

import time
from pathlib import Path

import torch
from protocol import commit_of, declare_torchvision, serve

declare_torchvision()

import ops  # noqa: E402
import torchvision  # noqa: E402
from ops.dataset import TSNDataSet  # noqa: E402
from ops.models import TSN  # noqa: E402
from ops.transforms import GroupNormalize, Stack, ToTorchFormatTensor  # noqa: E402
from torch.nn.utils import clip_grad_norm_  # noqa: E402

LR = 1e-6
ROOT = Path(ops.__file__ or ops.__path__[0]).parent
IMAGE = "img_{:05d}.jpg"
# Whether channels are shifted. The rest is that of scripts/train_tsm_kinetics_rgb_8f.sh and
# scripts/train_tsn_kinetics_rgb_5f.sh, which both pass --npb: all batch normalization layers are trained.
NAMES = {"tsm_1x1x8": True, "tsn_1x1x3": False}


def build(options):
    clips, segments, height, width = options["input"]
    device, precision = options["device"], getattr(torch, options["precision"])
    torch.manual_seed(0)
    model = TSN(
        400,
        segments,
        "RGB",
        base_model="resnet50",
        consensus_type="avg",
        dropout=0.5,
        partial_bn=False,
        pretrain=None,
        is_shift=NAMES[options["setting"]],
        shift_div=8,
        shift_place="blockres",
        fc_lr5=True,
    )
    model = model.to(device)
    policies = model.get_optim_policies()
    sgd = torch.optim.SGD(policies, LR, momentum=0.9, weight_decay=1e-4)
    for group in sgd.param_groups:
        group["lr"] = LR * group["lr_mult"]
        group["weight_decay"] = 1e-4 * group["decay_mult"]
    criterion = torch.nn.CrossEntropyLoss().to(device)
    scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)

    def autocast():
        return torch.autocast(device, precision, enabled=precision != torch.float32)

    generator = torch.Generator().manual_seed(0)
    # Its loader delivers normalized frames, so the steps below do not normalize.
    made = torch.randn(clips, segments * 3, height, width, generator=generator)
    labels = torch.zeros(clips, dtype=torch.long)

    def step(inputs, target):
        """Take a step as `train` of its main.py does, without its log lines.

        Its accuracy of a batch is left out as well: it fails in PyTorch since 1.5.
        """
        model.partialBN(False)
        model.train()
        target = target.to(device)
        with autocast():
            output = model(inputs.to(device, non_blocking=True))
            loss = criterion(output, target)
        scaler.scale(loss).backward()
        scaler.unscale_(sgd)
        clip_grad_norm_(model.parameters(), 20.0)
        scaler.step(sgd)
        scaler.update()
        sgd.zero_grad()
        return loss.item()

    def train():
        step(made, labels)

    @torch.no_grad()
    def infer():
        model.train(False)  # its eval() returns None
        with autocast():
            model(made.to(device, non_blocking=True)).softmax(1)

    @torch.no_grad()
    def check(file):
        model.train(False)
        clip = torch.randn(1, 3, segments, height, width, generator=torch.Generator().manual_seed(0))
        logits = model(clip.transpose(1, 2).flatten(1, 2).to(device)).cpu()
        torch.save({"state_dict": model.state_dict(), "clip": clip, "logits": logits}, file)

    phases = {"train": train, "infer": infer, "check": check}
    phases["video"] = "it reads folders of JPEG frames only"
    if options["frames_list"]:
        phases["frames"] = frames(model, options, segments, step)
    return phases


def frames(model, options, segments, step):
    """Return the phase that trains from folders of JPEG frames, with its dataset class and augmentation."""
    transform = torchvision.transforms.Compose(
        [
            model.get_augmentation(flip=True),
            Stack(roll=False),
            ToTorchFormatTensor(div=True),
            GroupNormalize(model.input_mean, model.input_std),
        ]
    )
    dataset = TSNDataSet(
        "", options["frames_list"], num_segments=segments, image_tmpl=IMAGE, transform=transform
    )
    batches = None

    def run():
        nonlocal batches
        start = time.perf_counter()
        if batches is None:
            batches = iter(
                torch.utils.data.DataLoader(
                    dataset,
                    options["batch_size"],
                    shuffle=True,
                    num_workers=options["workers"],
                    pin_memory=options["device"] == "cuda",
                    drop_last=True,
                )
            )
        inputs, labels = next(batches)
        waited = time.perf_counter() - start
        step(inputs, labels)
        return waited

    return run


serve(f"MIT TSM {commit_of(ROOT)}", build)
