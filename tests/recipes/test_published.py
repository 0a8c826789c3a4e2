"""The networks, views and averages of each recipe equal the published values in `published*.py`."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmaction_lite import list_recipes
from mmaction_lite.data.views.protocol import Protocol as TestedBy
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.optim import set_lr
from mmaction_lite.recipes.recipe import Recipe
from tests.recipes import published, published_x3d
from tests.recipes.published import (
    Jitter,
    MultiScale,
    Protocol,
    Published,
    Resized,
)
from tests.recipes.published_mvit import MVIT
from tests.recipes.published_swin3d import SWIN
from tests.recipes.published_uniformerv2 import UNIFORMERV2
from tests.recipes.published_videomae import FINE_TUNED
from tests.recipes.published_vjepa2 import PROBED

TABLE = published.TABLE | published_x3d.TABLE
DEVIATIONS = published.DEVIATIONS | published_x3d.DEVIATIONS
OWN = published.OWN | published_x3d.OWN
RECIPES = list_recipes()
HEIGHT, WIDTH, LENGTH = 384, 512, 300  # of the videos below: 4:3, 10 s at 30 fps


# How the tests reach a recipe's values. Only these functions know its fields.


def training_views(recipe: Recipe) -> TrainViews:
    return recipe.train


def protocol_of(recipe: Recipe, split: str) -> TestedBy:
    return getattr(recipe, f"{split}_protocol")


def protocol_views(recipe: Recipe, split: str) -> TestViews:
    return protocol_of(recipe, split).views


def normalized(recipe: Recipe, split: str, pixels: Tensor) -> Tensor:
    """uint8 (N, T, H, W, C) to the inputs of the network in `split`, (N, C, T, H, W)."""
    normalize = recipe.normalize if split == "train" else protocol_of(recipe, split).normalize
    return normalize(pixels)


def averaged(recipe: Recipe, split: str, logits: Tensor) -> Tensor:
    """(B, V, K) logits to (B, K) scores of the videos."""
    return protocol_of(recipe, split).average_logits(logits, lambda x: x.softmax(-1))


def lr_at(recipe: Recipe, epoch: float) -> float:
    return recipe.optimizer.lr * recipe.schedule.factor(epoch, recipe.epochs)


def has_frozen_statistics(recipe: Recipe) -> bool:
    return recipe.batch_norm == "frozen"


@cache
def network(name: str) -> nn.Module:
    """The recipe's network with 8 channels instead of 64, with initialized weights."""
    torch.manual_seed(0)
    return RECIPES[name].model(num_classes=400, width=8)


# Videos that record what is asked of them.


class Requests:
    """A video of 300 frames at 30 fps whose frames are tiny, which records each request."""

    fps, size = 30.0, (HEIGHT, WIDTH)

    def __init__(self):
        self.requests: list[tuple[np.ndarray, Any, Any, bool]] = []

    def __len__(self) -> int:
        return LENGTH

    def frames(
        self,
        indices: Any,
        box: Any = None,
        size: Any = None,
        antialias: bool = True,
        interpolation: Any = "bilinear",
    ) -> np.ndarray:
        self.requests.append((np.asarray(indices), box, size, antialias))
        return np.zeros((len(indices), 2, 2, 3), np.uint8)


class Coordinates(Requests):
    """The same with frames of full size: red holds half the column, green half the row."""

    def frames(
        self,
        indices: Any,
        box: Any = None,
        size: Any = None,
        antialias: bool = True,
        interpolation: Any = "bilinear",
    ) -> np.ndarray:
        super().frames(indices, box, size, antialias, interpolation)
        height, width = size
        picture = np.zeros((height, width, 3), np.uint8)
        picture[..., 0] = np.arange(width) // 2
        picture[..., 1] = np.arange(height)[:, None] // 2
        return np.broadcast_to(picture, (len(indices), *picture.shape))


@cache
def training_draws(name: str, number: int = 4000) -> tuple[list[tuple[np.ndarray, Any, Any, bool]], float]:
    """The requests of `number` training views, and the share of them that are mirrored."""
    source, views, flips = Requests(), training_views(RECIPES[name]), []
    rng = np.random.default_rng(0)
    for _ in range(number):
        flips += views.draw_views(source, rng, rng).flips.tolist()  # pyright: ignore[reportArgumentType]
    return source.requests, float(np.mean(flips))


@cache
def protocol_view(name: str, split: str) -> tuple[list[np.ndarray], bool, np.ndarray]:
    """Frames of each clip, whether frames are resized with antialiasing, and the first frame of each view."""
    source, views = Coordinates(), protocol_views(RECIPES[name], split)
    clips = views.read(source)  # pyright: ignore[reportArgumentType]
    (indices, _, _, antialias), *others = source.requests
    assert not others
    first = torch.from_numpy(clips[:, :1].copy())
    return np.split(indices, len(clips)), antialias, views.crops(first)[:, 0].numpy()


def expected(name: str, field: str) -> Any:
    """The published value, or the recipe's where `DEVIATIONS` lists it."""
    return DEVIATIONS.get((name, field), getattr(TABLE[name], field))


@pytest.fixture(params=TABLE)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_recipe_is_in_the_table_or_published_by_nobody_else():
    tables = (TABLE, FINE_TUNED, PROBED, SWIN, MVIT, UNIFORMERV2, OWN)
    assert {name for table in tables for name in table} == RECIPES.keys()
    assert sum(map(len, tables)) == len(RECIPES)
    assert {name for name, _ in DEVIATIONS} <= TABLE.keys()


def test_deviations_differ_from_the_published_values():
    for (recipe, field), value in DEVIATIONS.items():
        assert value != getattr(TABLE[recipe], field), f"{recipe}: {field} is published; remove the deviation"


def test_batch_epochs_gradient_norm_and_accuracy(name):
    recipe, row = RECIPES[name], TABLE[name]
    assert recipe.batch_size == row.batch_size
    assert recipe.epochs == row.epochs
    assert recipe.max_grad_norm == row.max_grad_norm
    assert recipe.precise_bn_clips == row.precise_bn_batches * row.batch_size
    assert has_frozen_statistics(recipe) == row.frozen_statistics
    assert recipe.reported is not None
    assert (recipe.reported.top1, recipe.reported.top5) == (row.top1, row.top5)


def test_optimizer_groups(name):
    """Learning rate, weight decay, momentum of every parameter after the warm-up."""
    recipe, row, model = RECIPES[name], TABLE[name], network(name)
    optimizer = recipe.optimizer.build(model)
    set_lr(optimizer, recipe.optimizer.lr)
    kinds = {}
    for module in model.modules():
        for kind, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.Linear):
                kinds[parameter] = f"classifier {kind}"
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                kinds[parameter] = "normalization"
            else:
                assert isinstance(module, nn.modules.conv._ConvNd)
                assert kind == "weight"  # no recipe's convolutions have a bias
                kinds[parameter] = "convolution"
    assert isinstance(optimizer, torch.optim.SGD)
    scales = {"classifier weight": row.scales[0], "classifier bias": row.scales[1]}
    decayed = expected(name, "decayed")
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"]) == (row.momentum, row.nesterov)
        assert group["dampening"] == 0
        for parameter in group["params"]:
            kind = kinds.pop(parameter)
            assert group["lr"] == pytest.approx(row.lr * scales.get(kind, 1)), kind
            assert group["weight_decay"] == row.weight_decay * (kind in decayed), kind
    assert not kinds  # every parameter is trained


def published_lr(row: Published, epoch: float) -> float:
    if row.milestones is None:
        progress = max(0.0, epoch - row.cosine_start) / (row.epochs - row.cosine_start)
        lr = row.lr * (1 + math.cos(math.pi * progress)) / 2
    else:
        lr = row.lr * row.gamma ** sum(epoch >= milestone for milestone in row.milestones)
    if epoch >= row.warmup_epochs:
        return lr
    start = row.warmup_lr / row.lr
    if row.warmup == "by epoch":
        return lr * (start + (1 - start) * int(epoch) / (row.warmup_epochs - 1))
    rise = epoch / row.warmup_epochs
    if row.warmup == "factor":
        return lr * (start + (1 - start) * rise)
    return row.warmup_lr + (published_lr(row, row.warmup_epochs) - row.warmup_lr) * rise


# The schedule of multigrid depends on its phases: see tests/data/test_batch_plan.py.
@pytest.mark.parametrize("name", [name for name in TABLE if "multigrid" not in name])
def test_learning_rates(name):
    recipe, row = RECIPES[name], TABLE[name]
    ends = [row.warmup_epochs, *(row.milestones or ()), row.epochs / 2, row.epochs]
    epochs = {0.0, 0.5, row.warmup_epochs / 4, row.warmup_epochs / 2}
    epochs |= {end + step for end in ends for step in (-1, -0.01, 0.01, 0.5)}
    for epoch in sorted(epoch for epoch in epochs if 0 <= epoch < row.epochs):
        assert lr_at(recipe, epoch) == pytest.approx(published_lr(row, epoch), rel=1e-6), epoch


def test_the_network_as_built(name):
    row, model = TABLE[name], network(name)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {row.dropout}
    classifier = model.get_submodule("fc")
    assert isinstance(classifier, nn.Linear)
    assert float(classifier.weight.detach().std()) == pytest.approx(
        expected(name, "classifier_std"), rel=0.05
    )
    assert not classifier.bias.any()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv3d)]
    kernels = {(c.kernel_size[0], c.stride[0]) for c in convolutions if c.stride[0] > 2}
    assert kernels == ({row.lateral} if row.lateral else set())
    if row.zero_init is not None:
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        starts_at_zero = [not norm.weight.any() for norm in norms]
        assert any(starts_at_zero) == row.zero_init


def test_training_crops(name):
    row = TABLE[name]
    requests, flips = training_draws(name)
    assert flips == pytest.approx(row.flip, abs=0.03 if row.flip else 0)
    assert {size for _, _, size, _ in requests} == {(row.train_size, row.train_size)}
    assert not any(antialias for *_, antialias in requests)
    boxes = np.array([box for _, box, _, _ in requests], float)
    assert len(np.unique(boxes[:, 0])) > 2
    assert len(np.unique(boxes[:, 1])) > 2
    match row.crop:
        case MultiScale():
            check_multi_scale(row.crop, boxes)
        case Resized():
            check_resized(row.crop, boxes)
        case Jitter():
            check_jitter(row.crop, row.train_size, boxes)


def check_multi_scale(crop: MultiScale, boxes: np.ndarray) -> None:
    pairs = {
        (a, b) for i, a in enumerate(crop.scales) for j, b in enumerate(crop.scales) if abs(i - j) <= crop.gap
    }
    top, left, height, width = boxes.T
    sides = np.stack([height, width], 1) / HEIGHT
    nearest = np.array(crop.scales)[np.abs(sides[..., None] - crop.scales).argmin(-1)]
    np.testing.assert_allclose(sides, nearest, atol=1 / HEIGHT)
    assert {(float(a), float(b)) for a, b in nearest} == pairs
    room = (height < HEIGHT) & (width < HEIGHT)
    places = np.stack([top[room] / (HEIGHT - height[room]), left[room] / (WIDTH - width[room])], 1)
    quarters = {tuple(place) for place in (np.round(places * 4) / 4).tolist()}
    assert quarters >= {(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)}
    assert len(quarters) == crop.positions


def check_resized(crop: Resized, boxes: np.ndarray) -> None:
    _, _, height, width = boxes.T
    areas, ratios = height * width / (HEIGHT * WIDTH), width / height
    np.testing.assert_allclose((areas.min(), ratios.min()), (crop.area[0], crop.ratio[0]), rtol=0.02)
    np.testing.assert_allclose((areas.max(), ratios.max()), (crop.area[1], crop.ratio[1]), rtol=0.03)


def check_jitter(crop: Jitter, size: int, boxes: np.ndarray) -> None:
    short_sides = size * HEIGHT / boxes[:, 2]
    np.testing.assert_allclose((short_sides.min(), short_sides.max()), crop.short_side, atol=1)
    assert (boxes[:, 2] == boxes[:, 3]).all()


def test_training_frames(name):
    row = TABLE[name]
    requests, _ = training_draws(name)
    clips = np.stack([indices for indices, *_ in requests])
    assert clips.shape == (4000, row.clip[0])
    length, interval = row.clip
    if not interval:  # every frame of each segment, which may end inside a frame
        for number, frames in enumerate(clips.T):
            begin, end = number * LENGTH / length, (number + 1) * LENGTH / length
            assert set(frames) == set(range(int(begin), math.ceil(end)))
        return
    if row.spacing == "interval":
        offsets = np.arange(length) * interval
    else:
        offsets = np.linspace(0, length * interval - 1, length)
    np.testing.assert_allclose(clips - clips[:, :1], np.tile(offsets, (4000, 1)), atol=1.01)
    assert clips[:, 0].min() == 0
    assert LENGTH - 2 <= clips[:, -1].max() <= LENGTH - 1


@pytest.mark.parametrize("split", ["val", "test"])
def test_protocol_views(name, split):
    row: Protocol = getattr(TABLE[name], split)
    clips, antialias, views = protocol_view(name, split)
    assert len(clips) == row.clips
    assert [len(indices) for indices in clips] == [row.segments or TABLE[name].clip[0]] * row.clips
    assert not antialias
    assert protocol_of(RECIPES[name], split).window == row.window
    assert views.shape == (row.clips * row.crops, row.size, row.size, 3)
    height, width = row.short_side, row.short_side * WIDTH // HEIGHT
    down, across = height - row.size, width - row.size
    places = {
        1: [(down // 2, across // 2, False)],
        3: [(down // 2, left, False) for left in (0, across // 2, across)],
        10: [
            (top, left, flip)
            for flip in (False, True)
            for top, left in (
                (0, 0),
                (0, across),
                (down, 0),
                (down, across),
                (down // 2, across // 2),
            )
        ],
    }[row.crops]
    found = []
    for view in views[: row.crops]:
        red, green = view[0, :, 0].astype(int) * 2, view[0, 0, 1] * 2
        found.append((int(green), int(red.min()), bool(red[0] > red[-1])))
    # No average depends on the order of the crops.
    np.testing.assert_allclose(
        sorted(found, key=lambda place: place[::-1]), sorted(places, key=lambda place: place[::-1]), atol=2
    )


def test_the_first_and_last_test_clip(name):
    """Segments are sampled at their centers, clips spread evenly from the first frame on."""
    row = TABLE[name]
    clips, _, _ = protocol_view(name, "test")
    length, interval = row.clip
    if not interval:
        number = row.test.segments or 0
        centers = [int((i + 0.5) * LENGTH / number) for i in range(number)]
        assert [indices.tolist() for indices in clips] == [centers]
        return
    starts = [int(indices[0]) for indices in clips]
    if row.spacing == "interval":  # to the last possible start
        last = LENGTH - 1 - (length - 1) * interval
        even = np.linspace(0, last, row.test.clips)
    else:  # clip k of n starts at k / n of the possible starts
        even = np.arange(row.test.clips) * (LENGTH - length * interval) / row.test.clips
    np.testing.assert_allclose(starts, even, atol=1)


@pytest.mark.parametrize("split", ["val", "test"])
def test_averaging(name, split):
    logits = torch.tensor([[[4.0, 0.0, -1.0], [0.0, 1.0, 0.5]]])
    means = {"probability": logits.softmax(-1).mean(1), "score": logits.mean(1).softmax(-1)}
    torch.testing.assert_close(averaged(RECIPES[name], split, logits), means[TABLE[name].average])
    assert not torch.allclose(means["probability"], means["score"], atol=0.01)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_normalization(name, split):
    row = TABLE[name]
    inputs = normalized(RECIPES[name], split, torch.full((1, 2, 3, 3, 3), 200, dtype=torch.uint8))
    assert inputs.shape == (1, 3, 2, 3, 3)
    published = (200 - torch.tensor(row.mean)) / torch.tensor(row.std)
    torch.testing.assert_close(inputs, published[:, None, None, None].expand(3, 2, 3, 3)[None])
