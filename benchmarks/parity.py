"""Export every network to both formats, and record the differences from the model.

    OMP_NUM_THREADS=1 python benchmarks/parity.py [BUILDER …] [--again]

The networks have their published width and input, and initial weights with running statistics from clips of
smooth noise. Rows are written to docs/use/parity.json; networks that the file already contains are
exported again with `--again` or if they are named. `frame_encoder` needs timm, whose weights are not used.
"""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import onnxruntime
import torch
from exported import initial_model

from mmaction_lite.export.write import compare, export_bytes
from mmaction_lite.models.complexity import PUBLISHED_INPUTS
from mmaction_lite.weights.card import card_of
from mmaction_lite.weights.exported import SUFFIXES

RECORD = Path(__file__).parent.parent / "docs" / "use" / "parity.json"
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *(("i3d_r50", {"non_local": mode}) for mode in ("dot_product", "embedded_gaussian", "gaussian")),
    ("tsm_r50", {"non_local": "embedded_gaussian"}),
    ("slowfast_r50_4x16", {"lateral_norm": False, "slow_frames": "strided", "fast_first": True}),
    ("c2d_r50", {"pool_padding": 0}),
]
OPTIONS += [("frame_encoder", {"image_model": "vit_small_patch16_dinov3"})] if find_spec("timm") else []
TOO_LARGE = {"vjepa2_huge", "vjepa2_giant", "vjepa21_giant", "vjepa21_gigantic"}  # for ONNX: above 2 GiB
FORMS = [*((name, {}) for name in PUBLISHED_INPUTS if name not in TOO_LARGE), *OPTIONS]


def measure(builder: str, options: dict[str, Any]) -> dict[str, Any]:
    """Export a network to every format, and return the differences and the sizes of the files."""
    model = initial_model(builder, **options)
    row: dict[str, Any] = {
        "builder": builder,
        "options": options,
        "input": list(card_of(model).test.views.view_shape),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    for suffix in SUFFIXES:
        start = perf_counter()
        data = export_bytes(model, suffix)
        seconds = perf_counter() - start
        logits, probabilities = compare(model, data, suffix)
        row[suffix.removeprefix(".")] = {
            "logits": float(f"{logits:.1e}"),
            "probabilities": float(f"{probabilities:.1e}"),
            "megabytes": round(len(data) / 1e6, 1),
            "seconds": round(seconds, 1),
        }
    return row


def other_rows(builder: str = "", options: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the rows of the record except that of a network."""
    rows = json.loads(RECORD.read_text()) if RECORD.exists() else []
    return [row for row in rows if (row["builder"], row["options"]) != (builder, options)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("builders", nargs="*")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for builder, options in FORMS:
        is_known = len(other_rows(builder, options)) < len(other_rows())
        is_wanted = builder in arguments.builders if arguments.builders else not is_known
        if not is_wanted and not arguments.again:
            continue
        row = measure(builder, options)
        print(json.dumps(row), flush=True)
        RECORD.write_text(json.dumps([*other_rows(builder, options), row], indent=1) + "\n")


if __name__ == "__main__":
    main()
