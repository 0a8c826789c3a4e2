"""Small real data sets, written once per test session."""

import os
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import typer.main

from mmaction_lite.data.sources import capture
from mmaction_lite.data.views.crops import CenterCrop, RandomCrop
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import tsm_r10
from mmaction_lite.optim import AdamW, OneCycle
from mmaction_lite.recipes.recipe import Build, Recipe


def write_video(path: Path, frames: np.ndarray) -> None:
    """H.264 at 25 fps from uint8 (T, H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "12"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 25)
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def brightening(number: int, frames: int = 16) -> np.ndarray:
    """A textured clip that gets brighter (even numbers) or darker: uint8 (frames, 48, 64, 3)."""
    rng = np.random.default_rng(number)
    texture = rng.integers(0, 60, (1, 12, 16, 3)).repeat(4, 1).repeat(4, 2)
    ramp = np.linspace(20, 180, frames)[:: 1 if number % 2 == 0 else -1, None, None, None]
    return (texture + ramp).astype(np.uint8)


@pytest.fixture(autouse=True)
def restored_environment() -> Iterator[None]:
    """Restore the variables of the package after each test; commands in this process set `--offline`."""
    before = {name: value for name, value in os.environ.items() if name.startswith("MMACTION_LITE_")}
    yield
    for name in [name for name in os.environ if name.startswith("MMACTION_LITE_")]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def one_parser() -> Iterator[None]:
    """Build the parser of the command line once, not for each of the many commands in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders: 12 training and 6 validation clips of two classes that are each other's reverse."""
    root = tmp_path_factory.mktemp("tiny")
    for number in range(18):
        split = "train" if number < 12 else "val"
        write_video(
            root / split / ("up" if number % 2 == 0 else "down") / f"{number}.mp4", brightening(number)
        )
    return root


def small_recipe() -> Recipe:
    """Two epochs of TSM that take a second."""
    clips = SegmentFrames(num_segments=4)
    val = TestViews(clips=clips, short_side=24, crop=CenterCrop(size=(20, 28)))
    return Recipe(
        model=Build(tsm_r10, width=8, dropout=0.2),
        dataset="tiny",
        train=TrainViews(clips=clips, short_side=24, crop=RandomCrop(size=(20, 28)), flip=0.5),
        val=val,
        test=val,
        optimizer=AdamW(lr=4e-3),
        schedule=OneCycle(),
        epochs=2,
        batch_size=4,
        label_smoothing=0.05,
        max_grad_norm=40.0,
    )


@pytest.fixture
def recipe() -> Recipe:
    """Return `small_recipe`."""
    return small_recipe()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Training with one torch thread: bit for bit repeatable, and faster for networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of a small TSM for `tiny`, and the files model.onnx and model.pt2 of them."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    from mmaction_lite.export.write import export_model
    from tests.exports import write_small_weights

    folder = tmp_path_factory.mktemp("exported")
    model = write_small_weights(folder / "weights.safetensors")
    for suffix in (".onnx", ".pt2"):
        export_model(model, folder / f"model{suffix}")
    return folder


@pytest.fixture(scope="session")
def transport(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MPEG transport stream of two seconds at 25 fps, as cameras send it."""
    from tests.data.stream_server import encoded

    path = tmp_path_factory.mktemp("streams") / "clip.ts"
    encoded(path, "mpegts", "libx264")
    return path


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to a lost stream again after 10 ms, not after half a second."""
    monkeypatch.setattr(capture, "FIRST_PAUSE", 0.01)
