"""An encoder, a recipe and stored features for the tests of probes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.loading.workers import IN_PROCESS
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.models.probe import Probe
from mmaction_lite.optim import AdamW
from mmaction_lite.recipes.probe import probe
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.training.feature_cache import FeatureCache
from mmaction_lite.training.feature_extraction import ClipViews, FeatureExtraction, StoredFeatures
from mmaction_lite.weights.card import ModelCard, load, save_weights
from tests.conftest import small_recipe
from tests.exports import with_statistics

ONE = DistributedContext(0, 1, 1, torch.device("cpu"))


def write_encoder(path: Path, seed: int = 0) -> Path:
    """Write weights of the network of `small_recipe`, with classes of another data set."""
    torch.manual_seed(seed)
    recipe = small_recipe()
    card = ModelCard.of(recipe, ("a", "b", "c"))
    save_weights(path, with_statistics(card.build()).state_dict(), card)
    return path


def small_probe(**settings: Any) -> Recipe:
    """A linear probe on the network of `small_recipe`, of six epochs with two heads."""
    recipe = probe(small_recipe(), 12)
    assert recipe.probe is not None
    chosen = replace(recipe.probe, learning_rates=(3e-3, 3e-2), weight_decays=(0.1,), **settings)
    return replace(recipe, epochs=6, batch_size=4, val_every=2, optimizer=AdamW(lr=3e-3), probe=chosen)


def extraction(network: Probe, storage: str = "float16", lines: list[str] | None = None) -> FeatureExtraction:
    """Extraction in one process, with the messages in `lines`."""
    return FeatureExtraction(
        probe=network,
        encoder="small",
        normalize=small_recipe().normalize,
        storage=storage,
        precision="float32",
        workers=IN_PROCESS,
        context=ONE,
        report=(lines if lines is not None else []).append,
    )


def store(
    computed: FeatureExtraction, samples: Samples, folder: Path, views: ClipViews | None = None
) -> StoredFeatures:
    """Fill a cache with the features of a split, by default of the validation views."""
    views = views or fixed_views()
    return computed.fill(FeatureCache(folder, computed.key(views), computed.report), samples, views)


def fixed_views() -> ClipViews:
    """Return the validation views of `small_recipe`."""
    views = small_recipe().val
    assert isinstance(views, TestViews)
    return ClipViews(views=views)


def load_probe(path: Path) -> Any:
    """Return the network of a probe with its card."""
    return load(path)
