"""Rows of the benchmark: their recipes, published numbers, and the frameworks that can train them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mmaction_lite.data.views.crops import RandomResizedCrop
from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.data.views.views import TrainViews
from mmaction_lite.errors import UserError, nearest
from mmaction_lite.models import (
    c2d_r50,
    mvit_v2_small,
    r2plus1d_r18,
    r2plus1d_r50,
    swin3d_tiny,
    videomae_base,
    videomae_small,
    vjepa2_large,
)
from mmaction_lite.optim import AdamW
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.recipe import Build, Recipe
from mmaction_lite.settings import NonNegativeFloat, PositiveFloat, PositiveInt, check_fields


@dataclass(frozen=True)
class Cell:
    """Numbers that another project published, measured on its own machine.

    Args:
        framework: name of the framework on the page.
        iteration_seconds: duration of a training step, loading included.
        data_seconds: part of it spent waiting for data.
        memory_mb: memory of one GPU.
        batch: clips of a step on one GPU.
        note: known error of the numbers.
    """

    framework: str
    iteration_seconds: PositiveFloat
    data_seconds: NonNegativeFloat
    memory_mb: PositiveInt
    batch: PositiveInt
    note: str = ""

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Setting:
    """One row of the benchmark.

    Args:
        name: name in the table.
        recipe: name of a recipe, or a function that returns one.
        published_batch: published batch size of one GPU, in clips.
        cpu_batch: batch size on a CPU, small enough for a step to take seconds instead of minutes.
        peers: frameworks that can train it, with the name of the setting in their worker in
            `benchmarks/peers/`.
        page: numbers of the first benchmark page: eight V100 with 32 GB, April to June 2020.
        about: explanation for the reader of the table.
        from_frames: read folders of JPEG frames instead of video files if the data set has both.
    """

    name: str
    recipe: str | Callable[[], Recipe]
    published_batch: PositiveInt
    cpu_batch: PositiveInt
    peers: dict[str, str]
    page: tuple[Cell, ...] = ()
    about: str = ""
    from_frames: bool = False

    def __post_init__(self):
        check_fields(self)

    @property
    def key(self) -> str:
        """Name for `find_setting`, which a worker of this package knows."""
        return self.recipe if isinstance(self.recipe, str) else self.name

    def build(self) -> Recipe:
        """Return the recipe."""
        return get_recipe(self.recipe) if isinstance(self.recipe, str) else self.recipe()


def c2d_8x8() -> Recipe:
    """PySlowFast's C2D, with the recipe of its SlowOnly: eight frames, every eighth one."""
    return replace(get_recipe("slowonly_r50_8x8x1_196e_kinetics400_rgb"), model=Build(c2d_r50), reported=None)


def r2plus1d_50() -> Recipe:
    """PyTorchVideo's R(2+1)D: 16 frames, every fourth one."""
    return _like_r2plus1d_34(Build(r2plus1d_r50), DenseClips(clip_len=16, frame_interval=4), 224)


def r2plus1d_18() -> Recipe:
    """torchvision's R(2+1)D: 16 frames of 112x112 pixels, every second one."""
    return _like_r2plus1d_34(Build(r2plus1d_r18), DenseClips(clip_len=16, frame_interval=2), 112)


def _like_r2plus1d_34(model: Build, clips: DenseClips, size: int) -> Recipe:
    views = TrainViews(clips=clips, crop=RandomResizedCrop(size=(size, size)), flip=0.5, antialias=False)
    return replace(
        get_recipe("r2plus1d_r34_8x8x1_180e_kinetics400_rgb"), model=model, train=views, reported=None
    )


def videomae_s() -> Recipe:
    """VideoMAE on ViT-S: 16 frames, every fourth one."""
    return _transformer(Build(videomae_small), 224)


def videomae_b_4() -> Recipe:
    """The first four of the twelve blocks of VideoMAE on ViT-B."""
    return _transformer(Build(videomae_base, depth=4), 224)


def vjepa2_l_4() -> Recipe:
    """The first four of the 24 blocks of V-JEPA 2 on ViT-L, with the attentive probe; all are trained."""
    return _transformer(Build(vjepa2_large, depth=4), 256)


def mvit_v2_s() -> Recipe:
    """MViTv2-S: 16 frames, every fourth one."""
    return _transformer(Build(mvit_v2_small), 224)


def swin3d_t() -> Recipe:
    """Video Swin-T: 32 frames, every second one."""
    return _transformer(Build(swin3d_tiny), 224, DenseClips(clip_len=32, frame_interval=2))


def _transformer(model: Build, size: int, clips: DenseClips | None = None) -> Recipe:
    clips = clips or DenseClips(clip_len=16, frame_interval=4)
    views = TrainViews(clips=clips, crop=RandomResizedCrop(size=(size, size)), flip=0.5, antialias=False)
    return replace(
        get_recipe("r2plus1d_r34_8x8x1_180e_kinetics400_rgb"),
        model=model,
        train=views,
        optimizer=AdamW(lr=1e-3),
        max_grad_norm=None,
        reported=None,
    )


LITE, OPEN, HAN = "mmaction-lite, 2020", "open-mmaction", "HAN (MIT's TSM)"

SETTINGS = (
    Setting(
        "TSN 1x1x3",
        "tsn_r50_1x1x3_100e_kinetics400_rgb",
        32,
        4,
        {"mmaction2": "tsn_1x1x3", "mit_tsm": "tsn_1x1x3"},
        (Cell(LITE, 0.2966, 0.0030, 8339, 32), Cell(OPEN, 0.3659, 0.0102, 8245, 32)),
        "Three frames from the whole video. The network is small; decoding takes most of the time.",
    ),
    Setting(
        "I3D 32x2",
        "i3d_r50_32x2x1_100e_kinetics400_rgb",
        8,
        1,
        {"mmaction2": "i3d_32x2"},
        (
            Cell(LITE, 0.4528, 0.1458, 5169, 8),
            Cell(
                OPEN,
                0.3659,
                0.0102,
                5065,
                8,
                "equals TSN's numbers, so a copying error; a later page has 0.56 s",
            ),
        ),
        "32 frames, every second one; an image network inflated in time.",
    ),
    Setting(
        "I3D 32x2, fast",
        "i3d_r50_fast_32x2x1_100e_kinetics400_rgb",
        8,
        1,
        {},
        (Cell(LITE, 0.3886, 0.3733, 5169, 8, "96 % of the time is spent waiting for data"),),
        "The same from JPEG frames (libjpeg-turbo). Crop and resize are one resampling in all rows.",
        from_frames=True,
    ),
    Setting(
        "I3D 8x8",
        "i3d_r50_heavy_8x8x1_196e_kinetics400_rgb",
        8,
        2,
        {"pytorchvideo": "i3d_8x8", "pyslowfast": "i3d_8x8"},
        (),
        "PySlowFast's I3D: the stem has no temporal stride. Not on the first page.",
    ),
    Setting(
        "C2D 8x8",
        c2d_8x8,
        8,
        2,
        {"pyslowfast": "c2d_8x8"},
        (),
        "A 2-D network with one pooling over time. Not on the first page.",
    ),
    Setting(
        "TSM 1x1x8",
        "tsm_r50_1x1x8_100e_kinetics400_rgb",
        16,
        2,
        {"mmaction2": "tsm_1x1x8", "mit_tsm": "tsm_1x1x8"},
        (
            Cell(LITE, 0.3052, 0.0095, 7077, 8, "the linked configuration trains 50 epochs"),
            Cell(HAN, 0.3843, 0.0143, 9337, 8),
        ),
        "Eight frames from the whole video; a quarter of the channels is shifted in time.",
    ),
    Setting(
        "SlowFast 4x16",
        "slowfast_r50_4x16x1_256e_kinetics400_rgb",
        8,
        1,
        {"mmaction2": "slowfast_4x16", "pytorchvideo": "slowfast_4x16", "pyslowfast": "slowfast_4x16"},
        (),
        "32 frames, four of them in the slow pathway. Empty on the first page.",
    ),
    Setting(
        "SlowFast 8x8",
        "slowfast_r50_8x8x1_256e_kinetics400_rgb",
        8,
        1,
        {"mmaction2": "slowfast_8x8", "pytorchvideo": "slowfast_8x8", "pyslowfast": "slowfast_8x8"},
        (),
        "32 frames, eight of them in the slow pathway. Empty on the first page.",
    ),
    Setting(
        "SlowOnly 4x16",
        "slowonly_r50_4x16x1_256e_kinetics400_rgb",
        16,
        2,
        {"mmaction2": "slowonly_4x16", "pytorchvideo": "slowonly_4x16", "pyslowfast": "slowonly_4x16"},
        (),
        "Only the slow pathway. Empty on the first page.",
    ),
    Setting(
        "SlowOnly 8x8",
        "slowonly_r50_8x8x1_256e_kinetics400_rgb",
        16,
        1,
        {"mmaction2": "slowonly_8x8", "pytorchvideo": "slowonly_8x8", "pyslowfast": "slowonly_8x8"},
        (),
        "Empty on the first page.",
    ),
    Setting(
        "R(2+1)D-34 8x8",
        "r2plus1d_r34_8x8x1_180e_kinetics400_rgb",
        8,
        1,
        {"mmaction2": "r2plus1d_34_8x8"},
        (),
        "Empty on the first page. On a CPU, MMAction2's SyncBN is replaced by batch normalization.",
    ),
    Setting(
        "R(2+1)D-34 32x2",
        "r2plus1d_r34_32x2x1_180e_kinetics400_rgb",
        8,
        1,
        {"mmaction2": "r2plus1d_34_32x2"},
        (),
        "Empty on the first page, where the configuration of this name sampled 8x8.",
    ),
    Setting(
        "R(2+1)D-50 16x4",
        r2plus1d_50,
        8,
        1,
        {"pytorchvideo": "r2plus1d_50_16x4"},
        (),
        "The variant of PyTorchVideo. Not on the first page.",
    ),
    Setting(
        "R(2+1)D-18 16x2, 112",
        r2plus1d_18,
        24,
        2,
        {"torchvision": "r2plus1d_18_16"},
        (),
        "The variant of torchvision. Not on the first page.",
    ),
    Setting(
        "X3D-S 13x6, 160",
        "x3d_s_13x6x1_300e_kinetics400_rgb",
        16,
        2,
        {"pytorchvideo": "x3d_s"},
        (),
        "Depthwise 3-D convolutions. PyTorchVideo does not normalize the first shortcut. Not on the "
        "first page.",
    ),
    Setting(
        "X3D-M 16x5",
        "x3d_m_16x5x1_300e_kinetics400_rgb",
        16,
        1,
        {"pytorchvideo": "x3d_m"},
        (),
        "The same network on larger clips. Not on the first page.",
    ),
    Setting(
        "VideoMAE-S 16x4",
        videomae_s,
        8,
        1,
        {"transformers": "videomae_small"},
        (),
        "ViT-S/16 on tubelets of two frames. AdamW; random weights. The epsilon of fc_norm is 1e-5 in "
        "transformers and 1e-6 in the original and here, which is the difference of the logits. Not on the "
        "first page.",
    ),
    Setting(
        "VideoMAE-B 16x4, 4 blocks",
        videomae_b_4,
        8,
        1,
        {"transformers": "videomae_base_4"},
        (),
        "Four of the twelve blocks of ViT-B/16: a step on a CPU takes seconds. Not on the first page.",
    ),
    Setting(
        "V-JEPA 2 L 16x4, 4 blocks",
        vjepa2_l_4,
        8,
        1,
        {"transformers": "vjepa2_large_4"},
        (),
        "Four of the 24 blocks of ViT-L/16 with the attentive probe; all are trained. Not on the first page.",
    ),
    Setting(
        "MViTv2-S 16x4",
        mvit_v2_s,
        8,
        1,
        {"torchvision": "mvit_v2_s"},
        (),
        "AdamW; random weights; no stochastic depth. Not on the first page.",
    ),
    Setting(
        "Video Swin-T 32x2",
        swin3d_t,
        8,
        1,
        {"torchvision": "swin3d_t"},
        (),
        "Windows of 8x7x7 tokens. AdamW; random weights; no stochastic depth. Not on the first page.",
    ),
)


QUICK = ("TSN 1x1x3", "SlowFast 4x16", "R(2+1)D-34 8x8")
"""Rows of `benchmark --quick`, with one clip per step and without files: under three minutes on two cores."""


def find_setting(name: str) -> Setting:
    """Return the row with this name or recipe; for any other recipe, a new row without peers.

    Raises:
        UserError: no row and no recipe has this name.
    """
    for setting in SETTINGS:
        if name in (setting.name, setting.recipe):
            return setting
    if "_" not in name:
        names = [setting.name for setting in SETTINGS]
        raise UserError(
            f"no row of the benchmark is called {name!r}; {nearest(name, names)}, or the name of a recipe"
        )
    batch_size = get_recipe(name).batch_size
    return Setting(name, name, max(1, batch_size // 8), 2, {})
