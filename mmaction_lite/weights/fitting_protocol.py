"""Protocols for converted weights: normalization, sampling and windows of the project that trained them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.samplers import (
    DenseClips,
    PySlowFastClips,
    SegmentClips,
    SegmentFrames,
    SegmentWindows,
)
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError
from mmaction_lite.models import x3d_l, x3d_m, x3d_s, x3d_xs
from mmaction_lite.recipes import list_recipes
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.weights.catalogue import list_weights
from mmaction_lite.weights.converters import Conversion, mmaction2, pyslowfast, pytorchvideo, torchvision
from mmaction_lite.weights.converters.files import CARD
from mmaction_lite.weights.converters.sources import NORMALIZE, StoredSettings
from mmaction_lite.weights.named import recipe_for

_LENGTHS: dict[type, str] = {
    SegmentFrames: "num_segments",
    SegmentClips: "num_segments",
    SegmentWindows: "window_len",
}
X3D = (x3d_xs, x3d_s, x3d_m, x3d_l)
# Changes of the test of X3D in PySlowFast, which averages the probabilities of windows. PyTorchVideo averages
# their logits, and MMAction2 pools the whole features.
X3D_TESTS: dict[str, dict[str, Any]] = {
    pytorchvideo.NAME: {"average": "score"},
    mmaction2.NAME: {"window": None},
}
STRIDE = 32  # pixels for each position of the last feature map, in every network of PySlowFast


def fit_protocol(recipe: Recipe, conversion: Conversion) -> tuple[Recipe, list[str]]:
    """Return the recipe with the protocols that converted weights expect, and notes about the changes.

    A recipe with the normalization of the project stays unchanged, except for the window of PySlowFast's
    test and for video weights of torchvision, which sample at a fixed frame rate. A normalization of no
    known project is a choice of the user and stays, too. Sizes of clips that the checkpoint stores have
    precedence over those of the recipe.

    Args:
        recipe: recipe of the network.
        conversion: result of the conversion.
    """
    recipe, notes = _fit_torchvision(recipe, conversion)
    recipe, changed = _fit_normalize(recipe, conversion)
    notes += changed
    recipe, changed = _fit_x3d(recipe, conversion.source)
    notes += changed
    sized = replace(
        recipe, **{name: _with_sizes(getattr(recipe, name), conversion.settings) for name in ("val", "test")}
    )
    if sized != recipe:
        notes.append(f"the sizes of clips are those that the file stores: {sized.test}")
    if other := conversion.settings.other_filter:
        notes.append(
            f"the file resizes frames with the filter resample={other}, which views do not have; they are "
            f"resized with {sized.test.interpolation}"
        )
    return sized, notes


def _with_sizes(views: TestViews, settings: StoredSettings) -> TestViews:
    """Return views with the sizes and the interpolation that a checkpoint stores."""
    clips, crop = views.clips, views.crop
    length = _LENGTHS.get(type(clips), "clip_len")
    if settings.clip_len not in (None, getattr(clips, length)):
        clips = replace(clips, **{length: settings.clip_len})
    if settings.crop is not None:
        crop = replace(crop, size=settings.crop)
    short_side = settings.short_side or views.short_side
    # Files describe a central crop. Several crops of this size that cover the short side still do.
    if not isinstance(crop, CenterCrop) and crop == views.crop and views.short_side == min(crop.size):
        short_side = views.short_side
    interpolation = settings.interpolation or views.interpolation
    return replace(views, clips=clips, crop=crop, short_side=short_side, interpolation=interpolation)


def _fit_torchvision(recipe: Recipe, conversion: Conversion) -> tuple[Recipe, list[str]]:
    """Return the recipe with the protocols of torchvision's video weights, and notes.

    These sample at a fixed frame rate. The catalogue has their protocols; those of the recipe change if it is
    for the same network, data set and number of frames.
    """
    is_own = recipe.normalize not in (conversion.normalize, *NORMALIZE.values())
    if conversion.source != torchvision.NAME or is_own:
        return recipe, []
    network = recipe.model.builder.__name__, recipe.dataset
    for entry in list_weights(source="torchvision").values():
        if (entry.builder, entry.dataset) != network:
            continue
        fitting = recipe_for(entry)
        if fitting.test.clips.clip_len == recipe.test.clips.clip_len:
            recipe = _with_protocols(recipe, fitting)
            return recipe, [f"the protocols are those of torchvision: {recipe.test_protocol}"]
    return recipe, []


def _with_protocols(recipe: Recipe, other: Recipe) -> Recipe:
    """Return the recipe with the protocols of another one."""
    names = ("val", "test", "normalize", "window", "average")
    return replace(recipe, **{name: getattr(other, name) for name in names})


def _fit_normalize(recipe: Recipe, conversion: Conversion) -> tuple[Recipe, list[str]]:
    """Return the recipe with the normalization that converted weights expect, and notes about changes."""
    expected = conversion.normalize
    is_pyslowfast = conversion.source == pyslowfast.NAME
    if expected is None or recipe.normalize == expected:
        return _with_window(recipe) if is_pyslowfast else recipe, []
    if recipe.normalize not in (expected, *NORMALIZE.values()):
        return recipe, [
            f"{conversion.source} normalizes pixels by {describe_normalize(expected)}, and the recipe, whose "
            f"values are kept, by {describe_normalize(recipe.normalize)}"
        ]
    fitting = fitting_recipe(recipe, expected)
    if fitting is not None:
        return _with_protocols(recipe, fitting), [
            f"the protocols are those of {fitting.name}, which fits weights of {conversion.source}: "
            f"{fitting.test_protocol}, pixels normalized by {describe_normalize(expected)}"
        ]
    changed: dict[str, Any] = {"normalize": expected}
    if is_pyslowfast:
        changed |= {name: _respaced(getattr(recipe, name)) for name in ("val", "test")}
    recipe = replace(recipe, **changed)
    return _with_window(recipe) if is_pyslowfast else recipe, [
        f"the protocols have the normalization of {conversion.source}, {describe_normalize(expected)}"
        f"{', and its sampling of clips' if is_pyslowfast else ''}"
    ]


def _fit_x3d(recipe: Recipe, source: str) -> tuple[Recipe, list[str]]:
    """Return a recipe of X3D with the project's test of clips larger than those of the training, and notes.

    Recipes have the test of PySlowFast.
    """
    if source not in (pyslowfast.NAME, *X3D_TESTS) or recipe.model.builder not in X3D:
        return recipe, []
    notes = []
    if recipe.model.builder is not x3d_l:
        notes.append(
            "weights of X3D-XS, S and M have the same names and shapes, so only the name of the file tells "
            f"them apart; the recipe is that of {recipe.model.builder.__name__}"
        )
    changes = X3D_TESTS.get(source)
    if changes is not None and recipe.window is not None:
        recipe = replace(recipe, **changes)
        notes.append(f"crops are classified as in {source}: {recipe.test_protocol}")
    return recipe, notes


def fitting_recipe(recipe: Recipe, normalize: Normalize) -> Recipe | None:
    """Return the recipe of the package for the same network and clips with another normalization, if any."""
    clips = recipe.test.clips
    for other in list_recipes().values():
        theirs = other.test.clips
        if (
            other.model.builder == recipe.model.builder
            and other.normalize == normalize
            and str(theirs) == str(clips)
            and other.multigrid is None
        ):
            return other
    return None


def _respaced(views: TestViews) -> TestViews:
    clips = views.clips
    if not isinstance(clips, DenseClips):
        return views
    sizes = {name: getattr(clips, name) for name in ("clip_len", "frame_interval", "num_clips")}
    return replace(views, clips=PySlowFastClips(**sizes))


def describe_normalize(normalize: Normalize) -> str:
    """Return mean and standard deviation as text."""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (normalize.mean, normalize.std))
    return f"mean ({mean}) and std ({std})"


def _with_window(recipe: Recipe) -> Recipe:
    """Return the recipe with PySlowFast's test of clips that are larger than those of the training.

    PySlowFast classifies every window of the features that has the size of the features in training. Recipes
    that already set a window, and those with equal sizes, stay unchanged.
    """
    trained, tested = min(recipe.train.crop.size), min(recipe.test.crop.size)
    if recipe.window is not None or tested <= trained:
        return recipe
    return replace(recipe, window=-(-trained // STRIDE))


def normalize_notes(normalize: Normalize, conversion: Conversion, checkpoint: Mapping[str, Any]) -> list[str]:
    """Return a note for a training that normalizes pixels differently from that of its initial weights.

    Args:
        normalize: normalization of the training.
        conversion: result of loading the weights.
        checkpoint: content of their file, as `read_checkpoint` returns it.
    """
    expected = conversion.normalize or _stored_normalize(checkpoint)
    if expected is None or expected == normalize:
        return []
    mean, std = ("(" + ",".join(f"{v:g}" for v in values) + ")" for values in (expected.mean, expected.std))
    return [
        f"the initial weights expect pixels normalized by {describe_normalize(expected)}, and the training "
        f"uses {describe_normalize(normalize)}; to use theirs, add "
        f"--set 'normalize.mean={mean}' --set 'normalize.std={std}'"
    ]


def _stored_normalize(checkpoint: Mapping[str, Any]) -> Normalize | None:
    """Return the normalization in the model card of a checkpoint, if it has a valid one."""
    try:
        fields = json.loads(checkpoint[CARD])["test"]["normalize"]
        return Normalize(mean=tuple(fields["mean"]), std=tuple(fields["std"]))
    except (KeyError, ValueError, TypeError, RecursionError, UserError):
        return None
