"""Published hyper-parameters, copied by hand from the papers' and projects' own files.

The table imports nothing from the package and is not derived from it. `test_published.py` compares each row
with what the recipe of that name builds. A number changes here only when its source was misread.

Sources:
    MMAction2 at commit 843914b0, v0.24.1 and v1.2.0: `configs/recognition` and `configs/_base_`.
    PySlowFast: `configs/Kinetics`, `slowfast/config/defaults.py` and `MODEL_ZOO.md`.
"""

from dataclasses import dataclass, replace
from typing import Literal

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # units of 0-255
PYSLOWFAST_MEAN, PYSLOWFAST_STD = (0.45 * 255,) * 3, (0.225 * 255,) * 3


@dataclass(frozen=True, kw_only=True)
class MultiScale:
    """MultiScaleCrop: sides in units of the short side, indices of the two at most `gap` apart."""

    scales: tuple[float, ...]
    gap: int
    positions: int


@dataclass(frozen=True, kw_only=True)
class Resized:
    """RandomResizedCrop: share of the frame's area, and width / height."""

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """The short side is resized to a random length, then a square is cut."""

    short_side: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Views of one video: clips × crops of `size` pixels cut from frames of `short_side`.

    `window` is the side of the windows of features that are classified by themselves; None: all at once.
    """

    clips: int = 1
    segments: int | None = None  # TSN and TSM: frames that enter the network together
    crops: int
    size: int
    short_side: int
    window: int | None = None


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published training and its test.

    Args:
        batch_size: clips per optimizer step, over all GPUs.
        lr: learning rate of convolution weights after the warm-up.
        scales: learning rate of the classifier's weight and bias, in units of `lr`.
        decayed: kinds of parameters to which `weight_decay` applies.
        milestones: epochs at which lr is multiplied by `gamma`; None: half a cosine to 0.
        cosine_start: epoch at which the cosine starts.
        warmup_lr: lr at the start of the linear warm-up.
        warmup: "by epoch": constant within an epoch, full lr in the last warm-up epoch. "factor": the
            warm-up multiplies the schedule. "line": a straight line to the schedule's lr at the last epoch.
        classifier_std: standard deviation of the classifier's initial weights.
        zero_init: whether the last normalization of each residual block starts at 0; None: not published.
        lateral: (temporal kernel, temporal stride) of SlowFast's lateral convolutions.
        clip: (frames, frame interval), or (segments, 0) where one frame is drawn from each segment.
        spacing: "interval": frames are `frame interval` apart. "span": `frames` evenly spaced frames, the
            first and the last of `frames * frame interval` consecutive frames included.
        precise_bn_batches: training batches over which running statistics are measured.
        top1, top5: published accuracy in percent.
    """

    batch_size: int
    epochs: int
    lr: float
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    scales: tuple[float, float] = (1.0, 1.0)
    decayed: frozenset[str] = frozenset(
        {"convolution", "normalization", "classifier weight", "classifier bias"}
    )
    milestones: tuple[int, ...] | None = None
    gamma: float = 0.1
    cosine_start: int = 0
    warmup_epochs: int = 0
    warmup_lr: float = 0.0
    warmup: Literal["by epoch", "factor", "line"] = "by epoch"
    max_grad_norm: float | None = 40.0
    dropout: float = 0.5
    classifier_std: float = 0.01
    zero_init: bool | None = None
    frozen_statistics: bool = False
    lateral: tuple[int, int] | None = None
    clip: tuple[int, int]
    spacing: Literal["interval", "span"] = "interval"
    crop: MultiScale | Resized | Jitter
    train_size: int = 224
    flip: float = 0.5
    val: Protocol
    test: Protocol
    average: Literal["probability", "score"] = "probability"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    precise_bn_batches: int = 0
    top1: float
    top5: float | None


def segments(number: int, crops: int = 1, size: int = 224, short_side: int = 256) -> Protocol:
    return Protocol(segments=number, crops=crops, size=size, short_side=short_side)


FIVE_PLACES = MultiScale(scales=(1, 0.875, 0.75, 0.66), gap=1, positions=5)
THIRTEEN_PLACES = replace(FIVE_PLACES, positions=13)
CENTER_224 = Protocol(crops=1, size=224, short_side=256)
TEN_BY_THREE = Protocol(clips=10, crops=3, size=256, short_side=256)

# MMAction2 v1.2.0 and 843914b0 are equal here. The head averages the logits of all frames and crops
# (`AvgConsensus`), before the softmax.
TSN = Published(
    batch_size=32 * 8,
    epochs=100,
    lr=0.01,
    milestones=(40, 80),
    max_grad_norm=40,
    dropout=0.4,
    clip=(3, 0),
    crop=FIVE_PLACES,
    val=segments(3),
    test=segments(25, crops=10),
    average="score",
    top1=72.83,
    top5=90.65,
)
# MMAction2 v1.2.0. `get_optim_policies` of MIT's repository: no decay on normalizations and biases.
TSM = Published(
    batch_size=16 * 8,
    epochs=50,
    lr=0.02,
    scales=(5, 10),
    decayed=frozenset({"convolution", "classifier weight"}),
    milestones=(25, 45),
    warmup_epochs=5,
    warmup_lr=0.002,
    max_grad_norm=20,
    classifier_std=0.001,
    clip=(8, 0),
    crop=THIRTEEN_PLACES,
    val=segments(8),
    test=segments(8, crops=10),
    top1=73.18,
    top5=90.56,
)
# MMAction2 v0.24.1: no warm-up and no mirroring, one view in the test.
TSM_STH = replace(
    TSM,
    batch_size=8 * 8,
    lr=0.01,
    weight_decay=5e-4,
    milestones=(20, 40),
    warmup_epochs=0,
    flip=0.0,
    test=segments(8),
    top1=45.58,
    top5=75.02,
)
TSM_UCF = replace(
    TSM_STH,
    batch_size=12 * 8,
    epochs=25,
    lr=0.0015,
    weight_decay=1e-4,
    milestones=(10, 20),
    top1=94.50,
    top5=99.58,
)
# MMAction2 v1.2.0 and 843914b0 are equal here.
I3D = Published(
    batch_size=8 * 8,
    epochs=100,
    lr=0.01,
    milestones=(40, 80),
    zero_init=False,
    clip=(32, 2),
    crop=MultiScale(scales=(1, 0.8), gap=0, positions=5),
    val=CENTER_224,
    test=TEN_BY_THREE,
    top1=73.47,
    top5=91.27,
)
# MMAction2 v1.2.0; 843914b0 has no warm-up and lr 0.6 for SlowOnly.
SLOWFAST = Published(
    batch_size=8 * 8,
    epochs=256,
    lr=0.1,
    warmup_epochs=34,
    warmup_lr=0.01,
    warmup="factor",
    lateral=(5, 8),
    clip=(32, 2),
    crop=Resized(),
    val=CENTER_224,
    test=TEN_BY_THREE,
    top1=75.55,
    top5=92.35,
)
SLOWONLY = replace(
    SLOWFAST,
    batch_size=16 * 8,
    lr=0.2,
    cosine_start=34,
    warmup_lr=0.02,
    lateral=None,
    clip=(4, 16),
    top1=72.97,
    top5=90.88,
)
# MMAction2 v1.2.0; 843914b0 has lr 0.2 for a batch of 128, and samples 8x8 under both names.
R2PLUS1D = replace(
    SLOWFAST, epochs=180, lr=0.01, warmup_epochs=0, lateral=None, clip=(8, 8), top1=69.76, top5=88.41
)
# PySlowFast: no gradient clipping, weight decay on all but normalizations. The pooling of a head has the
# 7x7 features of the 224 pixels of training, and the probabilities of its windows are averaged. Validation is
# not published: PySlowFast validates on random training views, this package on the center of the middle clip.
PYSLOWFAST = Published(
    batch_size=64,
    epochs=196,
    lr=0.1,
    nesterov=True,
    decayed=frozenset({"convolution", "classifier weight", "classifier bias"}),
    warmup_epochs=34,
    warmup_lr=0.01,
    warmup="line",
    max_grad_norm=None,
    zero_init=True,
    clip=(8, 8),
    spacing="span",
    crop=Jitter(short_side=(256, 320)),
    val=Protocol(crops=1, size=256, short_side=256, window=7),
    test=replace(TEN_BY_THREE, window=7),
    mean=PYSLOWFAST_MEAN,
    std=PYSLOWFAST_STD,
    precise_bn_batches=200,
    top1=73.5,
    top5=90.8,
)
STEPWISE = replace(
    PYSLOWFAST,
    epochs=239,
    milestones=(94, 154, 196),
    lateral=(7, 4),
    clip=(32, 2),
    top1=76.8,
    top5=92.7,
)

TABLE: dict[str, Published] = {
    "tsn_r50_1x1x3_100e_kinetics400_rgb": TSN,
    "tsm_r50_1x1x8_50e_kinetics400_rgb": TSM,
    "tsm_r50_1x1x8_100e_kinetics400_rgb": replace(
        TSM, epochs=100, milestones=(50, 90), warmup_epochs=10, top1=73.22, top5=90.22
    ),
    "i3d_r50_32x2x1_100e_kinetics400_rgb": I3D,
    "i3d_r50_fast_32x2x1_100e_kinetics400_rgb": replace(I3D, top1=72.32, top5=90.72),
    "slowfast_r50_4x16x1_256e_kinetics400_rgb": SLOWFAST,
    "slowfast_r50_8x8x1_256e_kinetics400_rgb": replace(SLOWFAST, lateral=(7, 4), top1=76.80, top5=92.99),
    "slowonly_r50_4x16x1_256e_kinetics400_rgb": SLOWONLY,
    "slowonly_r50_8x8x1_256e_kinetics400_rgb": replace(SLOWONLY, clip=(8, 8), top1=75.15, top5=92.11),
    "r2plus1d_r34_8x8x1_180e_kinetics400_rgb": R2PLUS1D,
    "r2plus1d_r34_32x2x1_180e_kinetics400_rgb": replace(R2PLUS1D, clip=(32, 2), top1=75.46, top5=92.28),
    # PySlowFast
    "i3d_r50_heavy_8x8x1_196e_kinetics400_rgb": PYSLOWFAST,
    "slowonly_r50_8x8x1_196e_kinetics400_rgb": replace(PYSLOWFAST, top1=74.8, top5=91.6),
    "slowonly_r50_4x16x1_196e_kinetics400_rgb": replace(PYSLOWFAST, clip=(4, 16), top1=72.7, top5=90.3),
    "slowfast_r50_4x16x1_196e_kinetics400_rgb": replace(
        PYSLOWFAST, lateral=(5, 8), clip=(32, 2), top1=75.6, top5=92.0
    ),
    "slowfast_r50_8x8x1_196e_kinetics400_rgb": replace(
        PYSLOWFAST, lateral=(7, 4), clip=(32, 2), top1=77.0, top5=92.6
    ),
    "slowfast_r50_stepwise_8x8x1_239e_kinetics400_rgb": STEPWISE,
    # 1.5 times the epochs of the stepwise training. Its schedule and its shapes are in test_batch_plan.py.
    "slowfast_r50_multigrid_8x8x1_358e_kinetics400_rgb": replace(
        STEPWISE,
        epochs=358,
        val=Protocol(crops=1, size=224, short_side=224),
        test=Protocol(clips=10, crops=3, size=224, short_side=224),
        top1=76.6,
        top5=92.7,
    ),
    # Other data sets, MMAction2 v0.24.1, if not stated otherwise
    "tsm_r50_1x1x8_50e_sthv1_rgb": TSM_STH,
    # v1.2.0 trains this, and v0.24.1 publishes the accuracy of one view.
    "tsm_r50_1x1x8_50e_sthv2_rgb": replace(TSM, weight_decay=5e-4, test=segments(8), top1=59.11, top5=85.39),
    "tsm_r50_1x1x8_50e_jester_rgb": replace(
        TSM_STH,
        crop=Resized(),
        flip=0.5,
        val=segments(8, size=256),
        test=segments(8, size=256),
        top1=96.5,
        top5=None,
    ),
    "tsm_r50_1x1x8_25e_ucf101_rgb": TSM_UCF,
    "tsm_r50_1x1x8_25e_hmdb51_rgb": replace(TSM_UCF, top1=72.68, top5=92.03),
    "tsn_r50_1x1x8_50e_sthv1_rgb": replace(
        TSN,
        batch_size=16 * 8,
        epochs=50,
        lr=0.02,
        milestones=(20, 40),
        max_grad_norm=20,
        dropout=0.5,
        frozen_statistics=True,
        clip=(8, 0),
        crop=THIRTEEN_PLACES,
        val=segments(8),
        test=segments(8, crops=10),
        top1=18.55,
        top5=44.80,
    ),
    # v1.2.0 trains this, and v0.24.1 publishes the accuracy.
    "tsn_r50_1x1x8_50e_sthv2_rgb": replace(
        TSN, epochs=50, milestones=(20, 40), dropout=0.5, clip=(8, 0), val=segments(8), top1=28.59, top5=59.56
    ),
    "tsn_r50_1x1x3_75e_ucf101_rgb": replace(
        TSN,
        epochs=75,
        lr=0.00128,
        weight_decay=5e-4,
        milestones=(),
        classifier_std=0.001,
        crop=Resized(),
        val=segments(3, size=256),
        test=segments(25, crops=3, size=256),
        top1=83.03,
        top5=96.78,
    ),
    "tsn_r50_1x1x8_50e_hmdb51_rgb": replace(
        TSN,
        epochs=50,
        lr=0.025,
        milestones=(20, 40),
        clip=(8, 0),
        crop=Resized(),
        val=segments(8, size=256),
        test=segments(8, size=256),
        top1=56.08,
        top5=84.31,
    ),
}

# Recipes that no other project publishes: `recipes.txt` alone holds their values.
OWN = {
    "tsn_r10_1x1x8_12e_motions_rgb",
    "tsm_r10_1x1x8_12e_motions_rgb",
    "tsm_online_r10_8x8x1_12e_motions_rgb",
    "tsm_online_r50_8x8x1_50e_kinetics400_rgb",
    "tsm_online_r50_8x4x1_50e_jester_rgb",
    "tsm_online_mobilenetv2_8x4x1_50e_jester_rgb",
    "tsn_r50_1x1x8_50e_jester_rgb",
    "i3d_r50_32x2x1_25e_ucf101_rgb",
    "i3d_r50_32x2x1_25e_hmdb51_rgb",
    "i3d_r50_32x2x1_25e_jester_rgb",
    "hiera_base_16x4x1_50e_kinetics400_rgb",  # see test_hiera.py
    "hiera_base_plus_16x4x1_50e_kinetics400_rgb",
    "hiera_large_16x4x1_50e_kinetics400_rgb",
    "videomae_base_16x4x1_100e_hmdb51_rgb",
    "videomae_pretrain_small_16x4x1_1600e_kinetics400_rgb",
    "videomae_pretrain_base_16x4x1_1600e_kinetics400_rgb",
    "videomae_pretrain_large_16x4x1_1600e_kinetics400_rgb",
    "videomae_pretrain_base_16x2x1_2400e_sthv2_rgb",
    "probe_attentive_1x1x8_20e_own_rgb",
    "probe_linear_1x1x8_50e_own_rgb",
}

# Where a recipe differs from its source: (recipe, field) to the recipe's value.
DEVIATIONS: dict[tuple[str, str], object] = {
    # The recipe exempts every one-dimensional parameter from weight decay, PySlowFast only normalizations
    # (`SOLVER.ZERO_WD_1D_PARAM` is False in these configurations).
    (name, "decayed"): frozenset({"convolution", "classifier weight"})
    for name, row in TABLE.items()
    if row.precise_bn_batches
}
# The builder initializes the classifier of every TSN as in the configuration for Kinetics.
DEVIATIONS["tsn_r50_1x1x3_75e_ucf101_rgb", "classifier_std"] = 0.01
