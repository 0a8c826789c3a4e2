"""Hiera: a hierarchical vision transformer (Ryali et al., ICML 2023, arXiv:2306.00989).

The authors have not released their training. The paper states 50 epochs of fine-tuning after a masked
pre-training on the videos of Kinetics-400, and a test of five clips with three crops. All other settings are
those of VideoMAE's fine-tuning, which starts from the same kind of pre-training. The reported accuracies are
those of the published weights.
"""

from dataclasses import replace

from mmaction_lite.models import hiera_base, hiera_base_plus, hiera_large
from mmaction_lite.recipes.recipe import Build, Recipe, Reported
from mmaction_lite.recipes.videomae import videomae_base_16x4x1_75e_kinetics400_rgb


def _finetuning(model: Build, file: str, top1: float) -> Recipe:
    """Return a fine-tuning on Kinetics-400.

    Args:
        model: builder of the network.
        file: published file of the masked pre-training.
        top1: accuracy of the published weights in percent.
    """
    return replace(
        videomae_base_16x4x1_75e_kinetics400_rgb(),
        model=model,
        epochs=50,
        starts_from=f"Hiera pre-trained on Kinetics-400 ({file})",
        reported=Reported(top1=top1, source="Hiera README.md"),
    )


def hiera_base_16x4x1_50e_kinetics400_rgb() -> Recipe:
    """Return Hiera-B on Kinetics-400, from the masked pre-training; the training is not published."""
    return _finetuning(Build(hiera_base, drop_path=0.1), "mae_hiera_base_16x224.pth", 84.0)


def hiera_base_plus_16x4x1_50e_kinetics400_rgb() -> Recipe:
    """Return Hiera-B+ on Kinetics-400, from the masked pre-training; the training is not published."""
    return _finetuning(Build(hiera_base_plus, drop_path=0.1), "mae_hiera_base_plus_16x224.pth", 85.0)


def hiera_large_16x4x1_50e_kinetics400_rgb() -> Recipe:
    """Return Hiera-L on Kinetics-400, from the masked pre-training; the training is not published."""
    return _finetuning(Build(hiera_large, drop_path=0.1), "mae_hiera_large_16x224.pth", 87.3)
