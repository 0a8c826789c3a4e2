"""Compare X3D-S in ONNX Runtime with PyTorchVideo's X3D-S on a CPU: milliseconds per clip.

    python benchmarks/x3d_onnx.py .peers/pytorchvideo/bin/python [--rounds 15] [--threads 2]

PyTorchVideo's network has initial weights and runs in eager mode in a process of its own, as its tutorials
run it. The weights are converted, exported with `export`, and run by ONNX Runtime; the graph starts at uint8
frames and includes the normalization. Both run alternately on the same clip, and the largest difference of
the logits, relative to the largest logit, is printed with the times.
"""

import argparse
import json
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.export.write import export_bytes
from mmaction_lite.recipes import get_recipe
from mmaction_lite.weights.card import load
from mmaction_lite.weights.conversion import convert_file
from mmaction_lite.weights.exported import open_graph

PEERS = Path(__file__).parent / "peers"
RECIPE = "x3d_s_13x6x1_300e_kinetics400_rgb"
PEER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import torch
from protocol import ANSWERS, declare_torchvision
declare_torchvision()
from pytorchvideo.models.hub import x3d_s
folder = sys.argv[2]
torch.set_num_threads(int(sys.argv[3]))
torch.manual_seed(0)
model = x3d_s(pretrained=False)
model.blocks[-1].activation = None
clip = torch.load(folder + "/clip.pt")
model.train()
with torch.no_grad():
    for _ in range(3):
        model(clip)  # running statistics of the clip
model.eval()
torch.save({"model_state": model.state_dict()}, folder + "/x3d_s.pyth")
with torch.inference_mode():
    torch.save(model(clip), folder + "/logits.pt")
    print("ready", file=ANSWERS, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        model(clip)
        print(time.perf_counter() - start, file=ANSWERS, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("python", type=Path, help="Python with PyTorchVideo")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare(arguments, Path(folder))))


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Return median times in milliseconds, the median of their ratios, and the difference of the logits."""
    recipe = get_recipe(RECIPE)
    assert isinstance(recipe.val, TestViews)
    of_training_size = replace(recipe.val, crop=CenterCrop(size=(160, 160)))
    recipe = replace(recipe, val=of_training_size, test=of_training_size, window=None)
    frames = torch.randint(256, (1, *of_training_size.view_shape), dtype=torch.uint8)
    clip = Normalize(mean=recipe.normalize.mean, std=recipe.normalize.std)(frames)
    torch.save(clip.squeeze(1), folder / "clip.pt")
    command = [
        str(arguments.python),
        "-W",
        "ignore",
        "-c",
        PEER,
        str(PEERS),
        str(folder),
        str(arguments.threads),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        if peer.stdout.readline().strip() != "ready":
            raise SystemExit(
                f"{arguments.python}: PyTorchVideo's network does not run; see the messages above"
            )
        weights = folder / "x3d_s.safetensors"
        convert_file(folder / "x3d_s.pyth", recipe, weights, keep_protocol=True)
        graph = open_graph(export_bytes(load(weights), ".onnx"), ".onnx", "x3d_s.onnx")
        logits, expected = graph.run(frames)[1], torch.load(folder / "logits.pt")
        theirs, ours = [], []
        for _ in range(arguments.rounds + 2):
            peer.stdin.write("\n")
            peer.stdin.flush()
            theirs.append(1000 * float(peer.stdout.readline()))
            start = perf_counter()
            graph.run(frames)
            ours.append(1000 * (perf_counter() - start))
        peer.stdin.close()
    theirs, ours = theirs[2:], ours[2:]  # without the runs that allocate
    return {
        "frames": list(frames.shape),
        "pytorchvideo_ms": round(median(theirs), 1),
        "onnx_ms": round(median(ours), 1),
        "ratio": round(median(one / other for one, other in zip(ours, theirs, strict=True)), 3),
        "difference": float((logits - expected).abs().max() / expected.abs().max()),
    }


if __name__ == "__main__":
    main()
