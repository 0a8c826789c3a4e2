"""Compare the forms of a network on a CPU: eager, folded, compiled, and ONNX Runtime in float32 and int8.

    OMP_NUM_THREADS=1 python benchmarks/exported.py [BUILDER …] [--rounds 7]
    OMP_NUM_THREADS=1 python benchmarks/exported.py [BUILDER …] --accuracy [--data data/motions]

The first command measures speed. The networks have their published width and input, and initial weights with
running statistics from clips of smooth noise. The forms run alternately in one process with one thread, after
a first run that compiles and allocates. The times are CPU time of the process, because other programs of the
machine change elapsed time more; compare the ratios.

The second command measures accuracy on the test split of the generated data set, with the thin networks that
benchmarks/families.py trains. A network whose run is not in --out is trained first, with seed 0.

Both update the rows of docs/use/exported.json, from which `python docs/use/export.py` writes the tables of
docs/use/export.md.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import onnxruntime
import torch
from families import FAMILIES, OF_LARGER_FRAMES, recipe_of
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmaction_lite import models
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.workers import IN_PROCESS
from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.demo import generate_motions
from mmaction_lite.export.int8 import quantize_onnx
from mmaction_lite.export.write import export_bytes
from mmaction_lite.inference.evaluate import calibration_clips, evaluate
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.complexity import PUBLISHED_INPUTS
from mmaction_lite.models.resnet import Block
from mmaction_lite.models.x3d import X3DBlock
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.training.loop import train
from mmaction_lite.weights.card import ModelCard, card_of, load
from mmaction_lite.weights.exported import model_of, open_graph

RECORD = Path(__file__).parent.parent / "docs" / "use" / "exported.json"
BUILDERS = ["tsn_r50", "tsm_r50", "tsm_mobilenetv2", "i3d_r50", "c2d_r50", "slowonly_r50"]
BUILDERS += ["slowfast_r50_4x16", "r2plus1d_r18", "r3d_r18", "mc3_r18", "videomae_small", "x3d_s"]
NORMALIZE = Normalize()


def smooth_frames(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return a clip of smooth noise, uint8 (1, T, H, W, 3)."""
    frames, height, width, _ = shape
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(frames, 3, height // 16, width // 16, generator=generator) * 255
    pixels = interpolate(noise, size=(height, width), mode="bilinear")
    return pixels.permute(0, 2, 3, 1)[None].to(torch.uint8)


def initial_model(builder: str, **options: Any) -> Any:
    """Return a network whose running statistics fit its inputs, with a card.

    Args:
        builder: name in `mmaction_lite.models`.
        options: arguments of the builder.
    """
    inputs = PUBLISHED_INPUTS.get(builder, ((8, 256, 256),))
    frames, height, width = inputs[-1 if builder == "slowonly_r50" else 0]
    torch.manual_seed(0)
    model = getattr(models, builder)(dropout=0.0, **options)
    views = TestViews(clips=SegmentFrames(num_segments=frames), crop=CenterCrop(size=(height, width)))
    protocol = Protocol(views=views, normalize=NORMALIZE)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for block in model.modules():
        if isinstance(block, Block):
            nn.init.constant_(block.last_norm.get_parameter("weight"), 0.3)
        if isinstance(block, X3DBlock):
            nn.init.constant_(block.bn3.weight, 0.3)
    for norm in norms:
        norm.momentum = None  # the running statistics become the mean over all clips
    with torch.no_grad():
        for seed in range(2):
            model.train()(NORMALIZE(smooth_frames((frames, height, width, 3), seed)))
    for norm in norms:
        norm.momentum = 0.1
    model.card = ModelCard(
        builder=builder,
        arguments={"dropout": 0.0, "num_classes": 400, **options},
        classes=tuple(map(str, range(400))),
        val=protocol,
        test=protocol,
        recipe="benchmark",
        task=SingleLabel(),
    )
    return model.eval()


def forms(model: Any, calibration: list[Tensor]) -> tuple[dict[str, Any], dict[str, int]]:
    """Return functions from frames to logits, by the name of the form, and sizes of the files in bytes."""
    normalize = card_of(model).test.normalize

    def of_module(module: nn.Module) -> Callable[[Tensor], Tensor]:
        return torch.no_grad()(lambda frames: module(normalize(frames)))

    torch.compiler.reset()
    folded = optimize_for_inference(model)
    compiled = torch.compile(folded, dynamic=False)
    found = {"eager": of_module(model), "folded": of_module(folded), "compiled": of_module(compiled)}  # pyright: ignore
    plain = export_bytes(model, ".onnx")
    files = {"onnx": plain, "onnx int8": quantize_onnx(plain, calibration)}
    for name, data in files.items():
        run = open_graph(data, ".onnx", name).run
        found[name] = lambda frames, run=run: run(frames)[1]
    return found, {name: len(data) for name, data in files.items()}


def measure(model: Any, rounds: int) -> dict[str, Any]:
    """Return medians of alternating runs, in milliseconds of CPU time, and differences of the logits."""
    card = card_of(model)
    shape = card.test.views.view_shape
    found, sizes = forms(model, [smooth_frames(shape, seed) for seed in range(4)])
    clips = [smooth_frames(shape, 100 + seed) for seed in range(4)]
    logits = {name: torch.cat([run(clip) for clip in clips]) for name, run in found.items()}
    spread = (logits["eager"] - logits["eager"].mean(0)).norm()
    row: dict[str, Any] = {
        "builder": card.builder,
        "input": list(shape),
        "rounds": rounds,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "megabytes": {name: round(size / 1e6, 2) for name, size in sizes.items()},
        "difference": {
            name: round(float((value - logits["eager"]).norm() / spread), 6) for name, value in logits.items()
        },
    }
    for key, frames in (("latency_ms", clips[0]), ("batch_of_4_ms", torch.cat(clips))):
        for run in found.values():
            run(frames)
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(rounds):
            for name, run in found.items():
                start = process_time()
                run(frames)
                times[name].append(1000 * (process_time() - start))
        row[key] = {name: round(median(each), 2) for name, each in times.items()}
    return row


def accuracies(builder: str, data: Path, out: Path) -> dict[str, Any]:
    """Return the top-1 accuracy of every form on the test split, and the form of the thin network."""
    recipes = map(recipe_of, (*FAMILIES, *OF_LARGER_FRAMES))
    recipe = next(each for each in recipes if each.model.builder.__name__ == builder)
    run = out / f"{builder}_0"
    if not (run / "weights.safetensors").exists():
        train(recipe, data, run, seed=0, console=Console(stderr=True), workers=IN_PROCESS)
    model = load(run)
    card = card_of(model)
    test, train_split = (read_split(data, split, card.classes) for split in ("test", "train"))
    plain = export_bytes(model, ".onnx")
    small = quantize_onnx(plain, calibration_clips(train_split, card.test, IN_PROCESS))
    found = {"folded": evaluate(model, test, card.test).metrics["top1"]}
    for name, content in (("onnx", plain), ("onnx int8", small)):
        exported = model_of(content, ".onnx", name)
        found[name] = evaluate(exported, test, exported.card.test).metrics["top1"]
    return {"builder": builder, "trained": repr(recipe.model), "top1": found}


def store(row: dict[str, Any]) -> None:
    """Update the row of a network in the record."""
    rows = {each["builder"]: each for each in json.loads(RECORD.read_text())} if RECORD.exists() else {}
    rows[row["builder"]] = rows.get(row["builder"], {}) | row
    RECORD.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
    print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("builders", nargs="*", default=BUILDERS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("data/motions"))
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.accuracy:
        generate_motions(arguments.data, "video", Console(stderr=True))
    for builder in arguments.builders:
        if arguments.accuracy:
            store(accuracies(builder, arguments.data, arguments.out))
        else:
            store(measure(initial_model(builder), arguments.rounds))


if __name__ == "__main__":
    main()
