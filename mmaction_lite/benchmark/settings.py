"""The rows of the benchmark page: what is trained, what the first page printed of it, who else can do it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mmaction_lite.data.views.crops import RandomResizedCrop
from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.data.views.views import TrainViews
from mmaction_lite.errors import UserError, nearest
from mmaction_lite.models import r2plus1d_r18, r2plus1d_r50
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.recipe import Build, Recipe


@dataclass(frozen=True)
class Cell:
    """What somebody else published, on a machine of theirs.

    Args:
        framework: as the page calls it.
        iteration_seconds: of a training step with its data.
        data_seconds: of that, spent waiting for data.
        memory_mb: of one GPU.
        batch: clips of a step on one GPU.
        note: what is wrong with it.
    """

    framework: str
    iteration_seconds: float
    data_seconds: float
    memory_mb: int
    batch: int
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """One row.

    Args:
        name: in the table.
        recipe: a recipe's name, or a function that makes one.
        published_batch: clips for each GPU, as published.
        cpu_batch: clips where the device is a processor: so few that a step takes seconds, not minutes.
        peers: for those who can train it, the name that their worker in `benchmarks/peers/` knows it by.
        page: the first page's numbers: eight V100 with 32 GB, April to June 2020.
        about: what a reader should know.
        from_frames: clips come from folders of JPEG frames instead of video files, where both are there.
    """

    name: str
    recipe: str | Callable[[], Recipe]
    published_batch: int
    cpu_batch: int
    peers: dict[str, str]
    page: tuple[Cell, ...] = ()
    about: str = ""
    from_frames: bool = False

    def build(self) -> Recipe:
        """The recipe."""
        return get_recipe(self.recipe) if isinstance(self.recipe, str) else self.recipe()


def r2plus1d_50() -> Recipe:
    """PyTorchVideo's R(2+1)D: 16 frames, one in four."""
    return _like_r2plus1d_34(Build(r2plus1d_r50), DenseClips(clip_len=16, frame_interval=4), 224)


def r2plus1d_18() -> Recipe:
    """torchvision's R(2+1)D: 16 frames of 112x112 pixels, every second one."""
    return _like_r2plus1d_34(Build(r2plus1d_r18), DenseClips(clip_len=16, frame_interval=2), 112)


def _like_r2plus1d_34(model: Build, clips: DenseClips, size: int) -> Recipe:
    views = TrainViews(clips=clips, crop=RandomResizedCrop(size=(size, size)), flip=0.5, antialias=False)
    return replace(
        get_recipe("r2plus1d_r34_8x8x1_180e_kinetics400_rgb"), model=model, train=views, reported=None
    )


LITE, OPEN, HAN = "mmaction-lite, 2020", "open-mmaction", "HAN (MIT's TSM)"

SETTINGS = (
    Setting(
        "TSN 1x1x3",
        "tsn_r50_1x1x3_100e_kinetics400_rgb",
        32,
        4,
        {"mmaction2": "tsn_1x1x3"},
        (Cell(LITE, 0.2966, 0.0030, 8339, 32), Cell(OPEN, 0.3659, 0.0102, 8245, 32)),
        "Three frames from anywhere in the video: the network is light, decoding is what costs.",
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
                OPEN, 0.3659, 0.0102, 5065, 8, "the same digits as TSN's, so copied; a later page says 0.56 s"
            ),
        ),
        "32 neighbouring frames, an image network inflated in time.",
    ),
    Setting(
        "I3D 32x2, fast",
        "i3d_r50_fast_32x2x1_100e_kinetics400_rgb",
        8,
        1,
        {},
        (Cell(LITE, 0.3886, 0.3733, 5169, 8, "96 % of the time is waiting for data"),),
        "The same from JPEG frames by libjpeg-turbo. Crop and resize are one resampling in every row here.",
        from_frames=True,
    ),
    Setting(
        "I3D 8x8",
        "i3d_r50_heavy_8x8x1_196e_kinetics400_rgb",
        8,
        2,
        {"pytorchvideo": "i3d_8x8"},
        (),
        "PySlowFast's I3D: no stride in time in the stem. Not on the first page.",
    ),
    Setting(
        "TSM 1x1x8",
        "tsm_r50_1x1x8_100e_kinetics400_rgb",
        16,
        2,
        {"mmaction2": "tsm_1x1x8"},
        (
            Cell(LITE, 0.3052, 0.0095, 7077, 8, "the linked configuration trains 50 epochs"),
            Cell(HAN, 0.3843, 0.0143, 9337, 8),
        ),
        "Eight frames from anywhere, a quarter of the channels shifted in time.",
    ),
    Setting(
        "SlowFast 4x16",
        "slowfast_r50_4x16x1_256e_kinetics400_rgb",
        8,
        1,
        {"mmaction2": "slowfast_4x16", "pytorchvideo": "slowfast_4x16"},
        (),
        "32 frames, of which the slow pathway sees four. Left empty on the first page.",
    ),
    Setting(
        "SlowFast 8x8",
        "slowfast_r50_8x8x1_256e_kinetics400_rgb",
        8,
        1,
        {"mmaction2": "slowfast_8x8", "pytorchvideo": "slowfast_8x8"},
        (),
        "The slow pathway sees eight. Left empty on the first page.",
    ),
    Setting(
        "SlowOnly 4x16",
        "slowonly_r50_4x16x1_256e_kinetics400_rgb",
        16,
        2,
        {"mmaction2": "slowonly_4x16", "pytorchvideo": "slowonly_4x16"},
        (),
        "The slow pathway alone. Left empty on the first page.",
    ),
    Setting(
        "SlowOnly 8x8",
        "slowonly_r50_8x8x1_256e_kinetics400_rgb",
        16,
        1,
        {"mmaction2": "slowonly_8x8", "pytorchvideo": "slowonly_8x8"},
        (),
        "Left empty on the first page.",
    ),
    Setting(
        "R(2+1)D-34 8x8",
        "r2plus1d_r34_8x8x1_180e_kinetics400_rgb",
        8,
        1,
        {"mmaction2": "r2plus1d_34_8x8"},
        (),
        "Left empty on the first page. On processors MMAction2's SyncBN is replaced by plain normalisation.",
    ),
    Setting(
        "R(2+1)D-34 32x2",
        "r2plus1d_r34_32x2x1_180e_kinetics400_rgb",
        8,
        1,
        {"mmaction2": "r2plus1d_34_32x2"},
        (),
        "Left empty on the first page, where the configuration of this name sampled 8x8.",
    ),
    Setting(
        "R(2+1)D-50 16x4",
        r2plus1d_50,
        8,
        1,
        {"pytorchvideo": "r2plus1d_50_16x4"},
        (),
        "PyTorchVideo's form. Not on the first page.",
    ),
    Setting(
        "R(2+1)D-18 16x2, 112",
        r2plus1d_18,
        24,
        2,
        {"torchvision": "r2plus1d_18_16"},
        (),
        "torchvision's form. Not on the first page.",
    ),
)


def find_setting(name: str) -> Setting:
    """The row of that name or recipe; any other recipe becomes a row of its own, without peers.

    Raises:
        UserError: there is no such row and no such recipe.
    """
    for setting in SETTINGS:
        if name in (setting.name, setting.recipe):
            return setting
    if "_" not in name:
        names = [setting.name for setting in SETTINGS]
        raise UserError(
            f"no row of the benchmark is called {name!r}; {nearest(name, names)}, or a recipe's name"
        )
    batch_size = get_recipe(name).batch_size
    return Setting(name, name, max(1, batch_size // 8), 2, {})
