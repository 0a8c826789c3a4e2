"""`mmaction-lite weights` and names in the other commands."""

import json
import sys

import pytest

from mmaction_lite.cli import main, weights
from mmaction_lite.weights.card import card_of, load
from mmaction_lite.weights.catalogue import catalogue, class_names
from mmaction_lite.weights.named import converted_path
from tests.conftest import brightening, write_video
from tests.weights.conftest import cache_dir, publish, server  # noqa: F401
from tests.weights.public import image_weights, small_tsm

TSM = "tsm_r50_1x1x8_50e_kinetics400_rgb@mit"

pytestmark = pytest.mark.usefixtures("one_thread")


def call(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["mmaction-lite", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    out, err = capsys.readouterr()
    return exit_.value.code or 0, out, err  # pyright: ignore[reportReturnType]


def test_list_filters_and_prints_json(monkeypatch, capsys):
    assert {command.name for command in weights.app.registered_commands} >= {"list"}
    code, out, _ = call(monkeypatch, capsys, "weights", "list", "--family", "tsm", "--source", "mit")
    assert code == 0
    assert TSM in out
    assert "converted by form only" in out
    assert "@mmaction2" not in out
    _, out, _ = call(monkeypatch, capsys, "weights", "list", "--all", "--json")
    rows = {row["name"]: row for row in json.loads(out)["weights"]}
    assert rows.keys() == catalogue().keys()
    assert rows["s3d_kinetics400_v1@torchvision"]["status"] == "not yet: no network s3d in this package"
    code, _, err = call(monkeypatch, capsys, "weights", "list", "--family", "tsn2")
    assert (code, err.count("\n")) == (2, 1)


def test_info_describes_available_and_other_weights(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "weights", "info", TSM)
    assert code == 0
    for part in ("MIT", "TenCrop", "72.80", "abseiling", "not cached", "recorded at the first download"):
        assert part in out
    _, out, _ = call(monkeypatch, capsys, "weights", "info", "s3d_kinetics400_v1@torchvision")
    assert "not yet: no network s3d" in out
    _, out, _ = call(monkeypatch, capsys, "weights", "info", TSM, "--json")
    facts = json.loads(out)
    assert (facts["builder"], len(facts["classes"]), facts["is_cached"]) == ("tsm_r50", 400, False)
    code, _, err = call(monkeypatch, capsys, "weights", "info", "tsm_r50")
    assert code == 2
    assert "nearest: " in err


def test_get_verify_predict_convert_and_train_by_name(monkeypatch, capsys, tmp_path, publish, server):  # noqa: F811
    entry = publish(TSM, small_tsm(), arguments={"width": 8})
    code, out, _ = call(monkeypatch, capsys, "weights", "get", TSM)
    assert (code, out.strip()) == (0, str(converted_path(entry)))
    code, out, _ = call(monkeypatch, capsys, "weights", "verify", TSM)
    assert code == 0
    assert out.startswith("400 logits, mean ")
    assert "no verified fingerprint is known" in out
    _, out, _ = call(monkeypatch, capsys, "weights", "verify", TSM, "--json")
    found = json.loads(out)["fingerprint"]
    publish(
        TSM, small_tsm(), arguments={"width": 8}, verified=({"fingerprint": found, "by": "A", "date": "B"},)
    )
    _, out, _ = call(monkeypatch, capsys, "weights", "verify", TSM)
    assert "equals the fingerprint by A of B" in out

    write_video(tmp_path / "clip.mp4", brightening(0))
    code, out, _ = call(monkeypatch, capsys, "predict", TSM, tmp_path / "clip.mp4", "--top", 3)
    assert code == 0
    labels = out.partition(": ")[2].splitlines()[0].split(", ")
    assert all(label.rpartition(" ")[0] in class_names("kinetics400") for label in labels)

    code, out, _ = call(monkeypatch, capsys, "convert", TSM, "--out", tmp_path / "x.safetensors")
    assert "from names of MIT TSM" in out
    assert card_of(load(tmp_path / "x.safetensors")).classes == class_names("kinetics400")
    code, _, err = call(monkeypatch, capsys, "convert", tmp_path / "x", "--out", tmp_path / "y.safetensors")
    assert (code, "--recipe is missing" in err) == (2, True)
    assert len(server.requests) == 1


def test_train_starts_from_imagenet(monkeypatch, capsys, tmp_path, tiny, publish):  # noqa: F811
    publish("resnet50@torchvision", image_weights(), arguments={"width": 8})
    small = ["epochs=1", "batch_size=4", "model.width=8"]
    small += [f"{views}.crop.size=(32,32)" for views in ("train", "val", "test")]
    settings = [part for setting in small for part in ("--set", setting)]
    recipe = "tsm_r50_1x1x8_50e_kinetics400_rgb"
    run = tmp_path / "run"
    arguments = ("train", recipe, "--data", tiny, "--out", run, "--workers", 0, *settings)
    code, _, err = call(monkeypatch, capsys, *arguments, "--init-from", "imagenet")
    assert code == 0, err
    assert "from names of torchvision" in err
    assert card_of(load(run)).started_from == "resnet50-0676ba61.pth"


def test_offline_is_an_option_of_the_commands(monkeypatch, capsys, tmp_path, cache_dir):  # noqa: F811
    code, _, err = call(monkeypatch, capsys, "predict", TSM, tmp_path / "clip.mp4", "--offline")
    assert (code, err.count("\n")) == (2, 1)
    assert "https://file.lzhu.me/projects/tsm/models/" in err
    assert str(cache_dir) in err
