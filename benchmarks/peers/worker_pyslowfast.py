"""Worker for PySlowFast from a checkout, which the benchmark puts on PYTHONPATH; the project has no package.

Names that recognition only imports, and that no package for current software has, are replaced by stand-ins:
`ROIAlign` of detectron2, and a loss and functions of PyTorchVideo's development version.
"""

import importlib
import itertools
import logging
import sys
import time
import types
from pathlib import Path

import torch
from protocol import commit_of, declare_torchvision, serve

declare_torchvision()


class Unused:
    """Stands for a name that is imported and never called."""

    def __init__(self, *arguments, **options):
        raise NotImplementedError("recognition does not use this")


def stand_in(module, *names):
    """Add names to a module that lack there; create the module if it cannot be imported."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        found = sys.modules[module] = types.ModuleType(module)
        found.__path__ = []
    for name in names:
        if not hasattr(found, name):
            setattr(found, name, Unused)


stand_in("detectron2")
stand_in("detectron2.layers", "ROIAlign")
stand_in("pytorchvideo.losses")
stand_in("pytorchvideo.losses.soft_target_cross_entropy", "SoftTargetCrossEntropyLoss")
stand_in(
    "pytorchvideo.layers.distributed",
    *("cat_all_gather", "get_local_process_group", "get_local_rank", "get_local_size"),
    "init_distributed_training",
)

import slowfast  # noqa: E402
from slowfast.config.defaults import get_cfg  # noqa: E402
from slowfast.datasets import loader  # noqa: E402
from slowfast.datasets.utils import pack_pathway_output  # noqa: E402
from slowfast.models import build_model, losses  # noqa: E402
from slowfast.models import optimizer as optim  # noqa: E402
from slowfast.utils import metrics, misc  # noqa: E402

LR = 1e-6
ROOT = Path(slowfast.__file__).parents[1]
NAMES = {
    "slowfast_4x16": "SLOWFAST_4x16_R50",
    "slowfast_8x8": "SLOWFAST_8x8_R50",
    "slowonly_4x16": "SLOW_4x16_R50",
    "slowonly_8x8": "SLOW_8x8_R50",
    "i3d_8x8": "I3D_8x8_R50",
    "c2d_8x8": "C2D_8x8_R50",
}


def configure(options):
    """Return the published configuration of a setting, for one device."""
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs" / "Kinetics" / f"{NAMES[options['setting']]}.yaml"))
    cfg.NUM_GPUS = int(options["device"] == "cuda")
    cfg.TRAIN.BATCH_SIZE = options["batch_size"]
    cfg.TRAIN.MIXED_PRECISION = options["precision"] != "float32"
    cfg.DATA_LOADER.NUM_WORKERS = options["workers"]
    cfg.DATA_LOADER.PIN_MEMORY = options["device"] == "cuda"
    cfg.DATA.DECODING_BACKEND = "pyav"
    cfg.SOLVER.BASE_LR = LR  # of a schedule; random inputs with a full one end in denormal numbers
    return cfg


def build(options):
    logging.disable(logging.WARNING)
    cfg = configure(options)
    device, precision = options["device"], getattr(torch, options["precision"])
    torch.manual_seed(0)
    model = build_model(cfg)
    sgd = optim.construct_optimizer(model, cfg)
    optim.set_lr(sgd, LR)
    scaler = torch.amp.GradScaler(device, enabled=cfg.TRAIN.MIXED_PRECISION)
    loss_fun = losses.get_loss_func(cfg.MODEL.LOSS_FUNC)(reduction="mean")

    def autocast():
        return torch.autocast(device, precision, enabled=cfg.TRAIN.MIXED_PRECISION)

    def pathways(clips):
        """Return the inputs of the network for normalized clips of shape (B, C, T, H, W)."""
        return [torch.stack(path) for path in zip(*(pack_pathway_output(cfg, c) for c in clips), strict=True)]

    clips, frames, height, width = options["input"]
    generator = torch.Generator().manual_seed(0)
    # Their loader delivers normalized clips, so the steps below do not normalize.
    made = pathways(torch.randn(clips, 3, frames, height, width, generator=generator))
    labels = torch.zeros(clips, dtype=torch.long)

    def step(inputs, labels):
        """Take a step as their `train_epoch` does, without its log lines."""
        model.train()
        if cfg.NUM_GPUS:
            inputs = [path.cuda(non_blocking=True) for path in inputs]
            labels = labels.cuda(non_blocking=True)
        with autocast():
            sgd.zero_grad()
            preds = model(inputs)
            loss = loss_fun(preds, labels)
        misc.check_nan_losses(loss)
        scaler.scale(loss).backward()
        scaler.unscale_(sgd)
        if grad_norm := getattr(optim, "get_grad_norm_", None):  # logged since 2023
            grad_norm(model.parameters()).item()
        scaler.step(sgd)
        scaler.update()
        top = metrics.topks_correct(preds, labels, (1, 5))
        return [value.item() for value in (loss, *top)]

    def train():
        step(made, labels)

    @torch.no_grad()
    def infer():
        model.eval()  # then their head returns probabilities
        with autocast():
            model([path.to(device, non_blocking=True) for path in made])

    @torch.no_grad()
    def check(file):
        model.eval()
        clip = torch.randn(1, 3, frames, height, width, generator=torch.Generator().manual_seed(0))
        activation, model.head.act = model.head.act, torch.nn.Identity()
        logits = model([path.to(device) for path in pathways(clip)]).cpu()
        model.head.act = activation
        torch.save({"state_dict": model.state_dict(), "clip": clip, "logits": logits}, file)

    phases = {"train": train, "infer": infer, "check": check}
    return phases | ({"video": video(cfg, options, step)} if options["list"] else {})


def video(cfg, options, step):
    """Return the phase that trains from video files, or why their loader cannot read them."""
    folder = Path("pyslowfast_list").absolute()
    folder.mkdir(exist_ok=True)
    (folder / "train.csv").write_bytes(Path(options["list"]).read_bytes())
    cfg.DATA.PATH_TO_DATA_DIR = str(folder)
    try:
        dataset = loader.build_dataset(cfg.TRAIN.DATASET, cfg, "train")
        dataset._num_retries = 8  # of 100 for a clip that cannot be read
        if dataset[0] is None:
            return "its PyAV loader cannot decode a clip at this commit"
    except Exception as error:
        return f"its PyAV loader fails: {type(error).__name__}: {error}"
    batches = None

    def run():
        nonlocal batches
        start = time.perf_counter()
        if batches is None:
            batches = itertools.chain.from_iterable(itertools.repeat(loader.construct_loader(cfg, "train")))
        inputs, labels, *_ = next(batches)
        waited = time.perf_counter() - start
        step(inputs, labels)
        return waited

    return run


serve(f"PySlowFast {commit_of(ROOT)}", build)
