"""Every published recipe at full size: one training step on a video, and its test protocol.

    python benchmarks/recipes.py VIDEO OUT.json [RECIPE ...]

It takes a few minutes without the transformers, of which the first recipe of each family and the recipes that
the command names are run. An interrupted run resumes after the last recipe in OUT.json.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mmaction_lite import list_recipes
from mmaction_lite.benchmark.environment import environment
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.inference.scores import compute_scores
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.network import recompute_layers
from mmaction_lite.optim import freeze, set_lr
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.training.gradients import Gradients

RECOMPUTED_ABOVE = 200_000_000  # trained parameters: more need over 9 GB with all activations


def family(recipe: Recipe) -> str:
    """Return the module of the builder; V-JEPA 2 and 2.1 are one family."""
    return recipe.model.builder.__module__.replace("vjepa21", "vjepa2")


def main(video: Path, out: Path, names: Sequence[str] = ()) -> None:
    """Append a row for every recipe that the file does not contain; `names` limits them to some recipes."""
    found = json.loads(out.read_text()) if out.exists() else {}
    here = environment(torch.device("cpu"))
    elsewhere = {} if found.setdefault("environment", here) == here else {"environment": here}
    rows = found.setdefault("recipes", {})
    recipes = list_recipes()
    for name, recipe in recipes.items():
        if name in rows or recipe.dataset in ("motions", "own") or (names and name not in names):
            continue
        is_run = family(recipe) in {family(recipes[done]) for done in rows}
        with torch.device("meta"):  # a giant network that is not run needs no memory
            is_transformer = hasattr(recipe.model(num_classes=400), "grid")
        if is_transformer and is_run and not names:
            continue
        torch.manual_seed(0)
        model = recipe.model(num_classes=400).train()
        if recipe.freeze:
            freeze(model, recipe.freeze)
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        if trained > RECOMPUTED_ABOVE:
            recompute_layers(model)
        optimizer = recipe.optimizer.build(model)
        set_lr(optimizer, recipe.optimizer.lr * recipe.schedule.factor(0, recipe.epochs))
        # Batch statistics of a single clip are not representative. A probe has no batch normalization.
        frozen = recipe if recipe.probe else replace(recipe, batch_norm="frozen", mixing=None)
        gradients = Gradients(
            model, frozen, None, torch.amp.GradScaler(enabled=False), may_shrink=False, report=print
        )
        rng = np.random.default_rng(0)
        with open_source(video) as source:
            began = time.perf_counter()
            pixels = torch.from_numpy(recipe.train.draw_views(source, rng, rng).pixels)
            read = time.perf_counter() - began
            began = time.perf_counter()
            loss, _ = gradients.add(pixels[None], torch.tensor([7] * len(pixels)), rng)
            optimizer.step()
            step = time.perf_counter() - began
            began = time.perf_counter()
            with torch.inference_mode():
                protocol = recipe.test_protocol
                clips = torch.from_numpy(protocol.read(source))
                scores = compute_scores(optimize_for_inference(model.eval()), [clips], protocol)
            test = time.perf_counter() - began
        assert torch.isfinite(loss)
        assert np.isfinite(scores).all()
        rows[name] = {
            **({"recompute": True} if trained > RECOMPUTED_ABOVE else {}),
            "input": [*pixels.shape[1:]],
            "loss": round(float(loss), 4),
            "read_seconds": round(read, 3),
            "step_seconds": round(step, 3),
            "test_views": recipe.test.num_views,
            "test_seconds": round(test, 3),
            "peak_megabytes_so_far": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            **elsewhere,
        }
        out.write_text(json.dumps(found, indent=1) + "\n")
        print(name, rows[name], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
