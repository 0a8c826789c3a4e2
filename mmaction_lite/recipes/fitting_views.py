"""Settings that give a recipe the views that initial weights expect."""

from dataclasses import fields
from typing import Any

from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.recipes.recipe import Recipe


def view_settings(recipe: Recipe, val: Protocol, test: Protocol) -> tuple[str, ...]:
    """Return the changes of a recipe that give it sizes, clips, filter and normalization of other protocols.

    Samplers and crops of another kind than those of the recipe stay; only their sizes change. Training views
    get the crop size of the validation; the short side to which they are resized changes in proportion. The
    window is that of the test.

    Args:
        recipe: the recipe.
        val: protocol for validations, of a weights file.
        test: protocol for tests.

    Returns:
        settings as for `--set`; empty if the recipe already has these views.
    """
    changes = {
        **_differences("val", recipe.val, val.views),
        **_differences("test", recipe.test, test.views),
        **_train_differences(recipe, val.views),
    }
    changes |= {
        f"normalize.{name}": getattr(test.normalize, name)
        for name in ("mean", "std")
        if getattr(test.normalize, name) != getattr(recipe.normalize, name)
    }
    if test.window != recipe.window:  # a crop of another size has another feature map
        changes["window"] = test.window
    return tuple(f"{name}={value}".replace(" ", "") for name, value in changes.items())


def _differences(prefix: str, ours: TestViews, theirs: TestViews) -> dict[str, Any]:
    changes = _clip_differences(f"{prefix}.clips", ours.clips, ours.clips, theirs.clips)
    pairs = {name: (getattr(ours, name), getattr(theirs, name)) for name in _OWN_FIELDS}
    pairs["crop.size"] = ours.crop.size, theirs.crop.size
    return changes | {f"{prefix}.{name}": new for name, (old, new) in pairs.items() if old != new}


_OWN_FIELDS = ("short_side", "antialias", "interpolation")


def _train_differences(recipe: Recipe, theirs: TestViews) -> dict[str, Any]:
    train, val = recipe.train, recipe.val
    changes = _clip_differences("train.clips", train.clips, val.clips, theirs.clips)
    changes.pop("train.clips.num_clips", None)
    for name in ("antialias", "interpolation"):
        if getattr(val, name) != getattr(theirs, name):
            changes[f"train.{name}"] = getattr(theirs, name)
    if val.crop.size == theirs.crop.size:
        return changes
    changes["train.crop.size"] = theirs.crop.size
    scale = min(theirs.crop.size) / min(train.crop.size)
    if train.short_side is not None:
        changes["train.short_side"] = round(train.short_side * scale)
    jittered = getattr(train.crop, "short_side", None)  # of ScaleJitterCrop
    if jittered is not None:
        changes["train.crop.short_side"] = tuple(round(side * scale) for side in jittered)
    return changes


def _clip_differences(prefix: str, ours: Any, val: Any, theirs: Any) -> dict[str, Any]:
    """Return the fields in which `theirs` differs from `val`, for a sampler `ours` of the same kind."""
    if not type(ours) is type(val) is type(theirs):
        return {}
    return {
        f"{prefix}.{field.name}": getattr(theirs, field.name)
        for field in fields(theirs)
        if getattr(theirs, field.name) != getattr(val, field.name)
    }
