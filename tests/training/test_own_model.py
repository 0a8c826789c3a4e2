"""A network in a user's own file goes through everything that the package's networks go through."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmaction_lite.cli import main
from mmaction_lite.weights.checkpoint import load_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"),
]

FILE = """
import torch
from torch import nn
from mmaction_lite.data.views.crops import CenterCrop, RandomCrop
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.recipes.recipe import Build, Recipe
from mmaction_lite.optim import AdamW, OneCycle

class ViT(nn.Module):
    def __init__(self, num_classes, dim=16, depth=3):
        super().__init__()
        self.patch = nn.Conv3d(3, dim, (2, 10, 14), (2, 10, 14))
        self.position = nn.Parameter(torch.zeros(1, 8, dim))
        layer = dict(d_model=dim, nhead=2, dim_feedforward=32, dropout=0.1, batch_first=True)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(**layer) for _ in range(depth))
        self.head = nn.Linear(dim, num_classes)
    def layers(self):
        return [self.patch, *self.blocks, self.head]
    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))

def vit():
    clips = SegmentFrames(num_segments=4)
    val = TestViews(clips=clips, short_side=24, crop=CenterCrop(size=(20, 28)))
    train = TrainViews(clips=clips, short_side=24, crop=RandomCrop(size=(20, 28)), flip=0.5)
    return Recipe(
        model=Build(ViT), dataset="tiny", train=train, val=val, test=val, optimizer=AdamW(lr=1e-3),
        schedule=OneCycle(), epochs=1, batch_size=4,
    )
"""


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command that succeeds: (standard output, standard error)."""

    def call(*arguments: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["mmaction-lite", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        assert not exit_.value.code, captured.err
        return captured.out, captured.err

    return call


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    return load_state(run_folder / "last.pt")["model"]


def test_a_users_transformer_trains_tests_and_predicts(run, tiny, tmp_path):
    file = tmp_path / "my_vit.py"
    file.write_text(FILE)
    recipe, data = f"{file}:vit", ["--data", tiny, "--workers", 0]
    first, tuned, sharded = (tmp_path / name for name in ("first", "tuned", "sharded"))

    run("train", recipe, *data, "--out", first, "--set", "optimizer.layer_decay=0.5")
    groups = load_state(first / "last.pt")["optimizer"]["param_groups"]
    scales = {len(group["params"]): group["lr_scale"] for group in groups}
    assert [group["lr_scale"] for group in groups] == [0.0625, 0.125, 0.25, 0.5, 1.0]
    assert scales[3] == 0.0625  # the patch embedding, with the position embedding
    assert scales[2] == 1.0  # the head

    options = ["--finetune", "--init-from", first, "--set", "freeze=1", "--set", "epochs=1"]
    _, error = run("train", recipe, *data, "--out", tuned, *options)
    assert "loaded: 41 entries, from names of mmaction-lite\nre-initialized: none" in error
    before, after = weights(first), weights(tuned)
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert frozen == {"patch.weight", "patch.bias", "position"}

    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "mmaction_lite", "train", recipe]
    options = ["--out", sharded, "--shard", "--init-from", tuned / "weights.safetensors"]
    done = subprocess.run(
        [*command, *map(str, [*data, *options, "--set", "optimizer.layer_decay=0.5"])],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "loaded: 41 entries" in done.stderr
    assert weights(sharded).keys() == before.keys()

    for folder in (tuned, sharded):
        output, _ = run("predict", folder, tiny / "val" / "up" / "12.mp4", "--recipe", recipe)
        assert "up 0." in output
