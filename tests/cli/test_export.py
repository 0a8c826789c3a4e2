import json

import numpy as np
import pytest

from mmaction_lite.cli import export as command
from mmaction_lite.inference.window_store import identity_of_model
from mmaction_lite.weights.card import load
from mmaction_lite.weights.exported import ExportedModel
from tests.conftest import brightening, write_video

pytestmark = pytest.mark.usefixtures("one_thread")


def test_export_prints_the_difference_the_input_and_the_protocol(run, exported, tmp_path):
    out = tmp_path / "model.pt2"
    code, output, error = run("export", exported / "weights.safetensors", "--to", "pt2", "--out", out)
    assert (code, error) == (0, "")
    difference, shape, protocol, file = output.splitlines()
    assert difference.startswith("largest difference from the weights: ")
    assert shape.startswith(
        "tsm_r10: uint8 RGB frames (batch, 4, 20, 28, 3) to probabilities and logits of 2"
    )
    assert protocol.startswith("1x1x4 frames: 1 clip × 1 crop")
    assert file == str(out)


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".pt2", marks=pytest.mark.slow)])
def test_predict_and_test_accept_the_file(run, exported, tiny, suffix):
    clip = tiny / "val" / "up" / "12.mp4"
    found, expected = (
        run("predict", exported / name, clip) for name in (f"model{suffix}", "weights.safetensors")
    )
    assert found[0] == 0
    assert found == expected
    code, output, _ = run("test", exported / f"model{suffix}", "--data", tiny, "--json")
    assert code == 0
    assert json.loads(output)["videos"] == 6
    code, _, error = run("test", exported / f"model{suffix}", "--data", tiny, "--amp", "bfloat16")
    assert code == 2
    assert "an exported graph runs as it is" in error


@pytest.mark.slow
def test_int8_prints_accuracy_and_size_of_both_files(run, exported, tiny, tmp_path):
    out = tmp_path / "int8.onnx"
    arguments = ("export", exported / "weights.safetensors", "--out", out, "--int8", "--calibrate", tiny)
    code, output, _ = run(*arguments, "--workers", "0", "--json")
    assert code == 0
    found = json.loads(output)
    assert found["int8_bytes"] == out.stat().st_size < found["float32_bytes"]
    assert found["int8_metrics"].keys() == found["float32_metrics"].keys()
    assert "6 videos of" in found["protocol"]
    code, output, _ = run("test", out, "--data", tiny, "--workers", "0")
    assert "int8; 6 videos of" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "a.pt2", "--int8", "--calibrate", "x"), "--int8 quantizes ONNX files in float32"),
        (("--out", "a.onnx", "--int8"), "--int8 and --calibrate DATA belong together"),
        (("--out", "a.onnx", "--to", "pt2"), "expected a file name ending in .pt2"),
        (("--out", "a.engine"), "expected a file name ending in .onnx or .pt2"),
    ],
)
def test_options_that_do_not_fit(run, exported, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("export", exported / "weights.safetensors", *options)
    assert code == 2
    assert message in error
    assert not list(tmp_path.iterdir())


def test_the_command_has_a_summary_for_the_help():
    assert (command.export.__doc__ or "").endswith(".")


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    write_video(path, np.concatenate([brightening(number) for number in range(6)]))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_timeline_and_live_answer_as_the_weights_do(run, exported, long, suffix):
    answers = []
    for name in ("weights.safetensors", f"model{suffix}"):
        options = ("--window", "0.64", "--stride", "0.16", "--switch", "0.1", "--json")
        code, output, error = run("timeline", exported / name, long, *options)
        assert (code, error) == (0, "")
        segments = json.loads(output)["videos"][0]["segments"]
        code, output, _ = run("live", exported / name, long, "--speed", "0", "--every", "0.5", "--json")
        assert code == 0
        rows = list(map(json.loads, output.splitlines()))
        answers.append((segments, [row["predictions"] for row in rows]))
    (segments, rows), (expected_segments, expected_rows) = answers
    assert segments
    assert len(rows) > 2
    for found, expected in zip(segments, expected_segments, strict=True):
        assert found | {"score": 0} == expected | {"score": 0}
        assert found["score"] == pytest.approx(expected["score"], abs=1e-5)
    for found, expected in zip(rows, expected_rows, strict=True):
        assert [row["label"] for row in found] == [row["label"] for row in expected]
        scores = [[row["score"] for row in rows] for rows in (found, expected)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_windows_of_another_exported_file_are_not_used_again(exported):
    one = load(exported / "model.onnx")
    assert isinstance(one, ExportedModel)
    same, other = (
        ExportedModel("model.onnx", lambda frames: (frames, frames), one.card, digest=digest)
        for digest in (one.digest, "another")
    )
    assert identity_of_model(one) == identity_of_model(same) != identity_of_model(other)


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".pt2", marks=pytest.mark.slow)])
def test_commands_that_need_layers_say_what_is_possible(run, exported, long, tmp_path, suffix):
    model = exported / f"model{suffix}"
    for arguments, end in [
        (("features", model, long, "--out", tmp_path / "a.npz"), ""),
        (("features", model, "--layers"), ""),
        (("explain", model, long, "--out", tmp_path), ", or use --method occlusion"),
        (("live", model, long, "--per-frame"), ""),
    ]:
        line = f"{model}: an exported file has no layers; pass the weights that were exported{end}"
        assert run(*arguments) == (2, "", f"error: {line}\n")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_occlusion_explains_exported_files(run, exported, long, tmp_path, suffix):
    rows = []
    for name in ("weights.safetensors", f"model{suffix}"):
        options = ("--method", "occlusion", "--out", tmp_path / name, "--json")
        code, output, error = run("explain", exported / name, long, *options)
        assert (code, error) == (0, "")
        rows.append(json.loads(output)["videos"][0]["explanations"][0])
    assert rows[0]["label"] == rows[1]["label"]
    assert rows[0]["frame_mass"] == pytest.approx(rows[1]["frame_mass"], abs=1e-3)
