"""Set up the training of a probe: encoder, stored features, heads."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.files import cache_folder
from mmaction_lite.models.probe import Probe, heads_note
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.training.encoder import FILE, Encoder
from mmaction_lite.training.feature_cache import FeatureCache
from mmaction_lite.training.feature_extraction import ClipViews, FeatureExtraction, StoredFeatures, Track
from mmaction_lite.training.preflight import check_forward
from mmaction_lite.training.probe_clips import ProbeClips
from mmaction_lite.training.run_folder import RunFolder
from mmaction_lite.training.state import build_state
from mmaction_lite.training.training import Training, class_weights
from mmaction_lite.weights.card import save_weights


def build_probe(
    encoder: Encoder,
    splits: tuple[Samples, Samples],
    batch_plan: BatchPlan,
    run: RunFolder,
    context: DistributedContext,
    *,
    workers: WorkerSettings,
    folder: Path | None,
    track: Track | None,
    report: Callable[[str], None],
) -> tuple[Training, ProbeClips]:
    """Compute the features that are not stored yet; return the training of the heads, and its data.

    Args:
        encoder: encoder and recipe.
        splits: training and validation split.
        batch_plan: batch sizes.
        run: the run folder.
        context: processes and device.
        workers: decoding worker processes.
        folder: folder of stored features; None: `features` in the cache folder.
        track: wraps the clips to show progress.
        report: called with lines about the features.

    Raises:
        UserError: the views do not fit the encoder, clips cannot be read, or the disk is too small.
        Interrupted: Ctrl-C while features are computed.
    """
    recipe, (samples, val_samples) = encoder.recipe, splits
    assert recipe.probe is not None
    torch.manual_seed(run.seed)
    probe = run.card.build(recipe)
    assert isinstance(probe, Probe)
    probe.encoder.load_state_dict(encoder.weights)
    if note := heads_note(probe):
        report(note)
    probe.requires_grad_(False).head.requires_grad_(True)
    check_forward(recipe, probe, run.card.task.num_logits(len(samples.classes)))
    run.card = replace(run.card, started_from=run.card.started_from or encoder.source)
    workers = replace(workers, num_workers=workers.count(context.local_world_size))
    extraction = _extraction(probe, recipe, context, workers, track, report)
    folder = folder or cache_folder() / "features"
    features, val_features = _stored(extraction, recipe, splits, folder, run.seed)
    probe.cpu()
    clips = ProbeClips(
        recipe,
        samples,
        val_samples,
        context,
        task=run.card.task,
        probe=probe,
        features=features,
        val_features=val_features,
        workers=workers,
        seed=run.seed,
    )
    state = build_state(recipe, clips.heads(), context, report=report)
    progress = run.begin(*state.checkpoint())
    if run.writes and not (run.out / FILE).is_file():
        save_weights(run.out / FILE, probe.state_dict(), run.card)
    training = Training(
        recipe,
        state,
        progress,
        batch_plan,
        context,
        task=run.card.task,
        num_classes=len(samples.classes),
        class_weights=class_weights(recipe, samples, context.device),
        seed=run.seed,
        may_shrink=context.world_size == 1,
        report=report,
        prepare=clips.prepare,
    )
    return training, clips


def _extraction(
    probe: Probe,
    recipe: Recipe,
    context: DistributedContext,
    workers: WorkerSettings,
    track: Track | None,
    report: Callable[[str], None],
) -> FeatureExtraction:
    assert recipe.probe is not None
    return FeatureExtraction(
        probe=probe.to(context.device),
        encoder=f"{recipe.model.arguments['encoder']} with {recipe.model.arguments['arguments']}",
        normalize=recipe.normalize,
        storage=recipe.probe.storage,
        precision=recipe.precision,
        workers=workers,
        context=context,
        report=report,
        track=track if context.is_main_process else None,
    )


def _stored(
    extraction: FeatureExtraction, recipe: Recipe, splits: tuple[Samples, Samples], folder: Path, seed: int
) -> tuple[StoredFeatures, StoredFeatures]:
    """Return the features of both splits; those that are not stored are computed."""
    assert recipe.probe is not None
    fixed = ClipViews(views=recipe.val)
    passes = recipe.probe.passes
    views = ClipViews(views=recipe.train, passes=passes, seed=seed) if passes else fixed
    found = []
    for samples, clip_views in zip(splits, (views, fixed), strict=True):
        cache = FeatureCache(folder, extraction.key(clip_views), extraction.report)
        found.append(extraction.fill(cache, samples, clip_views))
    return found[0], found[1]
