import json

import pytest

from mmaction_lite.cli import export as command

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
