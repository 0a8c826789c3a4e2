"""`train --probe` on the command line: its result in every other command, and one-line errors."""

import json

import pytest

from mmaction_lite.cli import app
from mmaction_lite.recipes.probe import probe
from mmaction_lite.weights.card import card_of, load

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = ["--set", "epochs=2", "--set", "batch_size=4", "--set", "val_every=1", "--workers", "0"]


@pytest.fixture(scope="module")
def probed(tiny, trained, motions_recipe, tmp_path_factory):
    """The command and the run folder of a probe on the small TSM."""
    folder = tmp_path_factory.mktemp("probed")
    command = ["train", motions_recipe, "--probe", "--init-from", trained, "--data", tiny]
    return [*command, "--feature-cache", folder / "cache", *SETTINGS], folder / "run"


def test_the_result_works_in_other_commands(run, tiny, probed, tmp_path):
    assert app is not None
    assert probe is not None
    command, out = probed
    code, output, error = run(*command, "--out", out)
    assert code == 0, error
    assert "12 new; to write: 12 clips of 1 × 1 × 64 float16, 1.5 kB" in error
    assert "(learning rate " in error
    assert "best val top-1" in output
    code, output, _ = run("test", out, "--data", tiny, "--json")
    assert code == 0
    assert json.loads(output)["top1"] >= 0
    clip = tiny / "val" / "up" / "12.mp4"
    assert run("predict", out, clip)[0] == 0
    assert run("features", out, clip, "--out", tmp_path / "f.npz", "--workers", "0")[0] == 0
    timeline = run("timeline", out, clip, "--out", tmp_path / "t", "--stride", "0.2")
    assert timeline[0] == 0, timeline[2]
    assert card_of(load(out)).builder == "probe_linear"
    code, _, error = run(*command, "--out", tmp_path / "again")
    assert code == 0
    assert "12 stored in" in error


def test_a_probe_without_a_recipe(run, tiny, trained, tmp_path):
    command = [
        "train",
        "--probe",
        "--init-from",
        trained,
        "--data",
        tiny,
        "--out",
        tmp_path / "run",
        *SETTINGS,
    ]
    code, _, error = run(*command, "--feature-cache", tmp_path / "cache", "--device", "cpu")
    assert code == 0, error
    assert "chosen: probe with tsm_r10_1x1x8_12e_motions_rgb, because you asked for it" in error
    assert card_of(load(tmp_path / "run")).builder == "probe_linear"


@pytest.mark.slow
def test_the_result_is_exported(run, probed, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    command, out = probed
    if not out.exists():
        assert run(*command, "--out", out)[0] == 0
    for suffix in ("onnx", "pt2"):
        code, _, error = run("export", out, "--out", tmp_path / f"model.{suffix}")
        assert code == 0, error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--probe"], "pass the weights of the encoder as --init-from"),
        (["--probe", "--finetune", "--init-from", "x"], "--probe and --finetune are both given"),
        (["--feature-cache", "x"], "--feature-cache is given without a probe; add --probe"),
        (["--probe", "--shard", "--init-from", "x"], "--shard cannot be combined with a probe"),
        (["--probe", "--init-from", "x", "--set", "freeze=2"], "freeze is 2 and probe is set; expected"),
        (
            ["--probe", "--init-from", "x", "--set", "probe.storage=int8"],
            "expected one of 'float16', 'float32'",
        ),
        (["--probe", "--init-from", "x.pt"], "x.pt: no such file or run folder"),
        (["--linear-probe"], "use --probe"),
    ],
)
def test_errors_are_one_line(run, tiny, motions_recipe, tmp_path, options, message):
    code, _, error = run("train", motions_recipe, "--data", tiny, "--out", tmp_path / "run", *options)
    assert code == 2
    assert message in error
    assert error.count("\n") <= 2
    assert not (tmp_path / "run").exists()
