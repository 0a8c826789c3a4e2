"""Training of probes: the result is an ordinary network, and every head is trained as if it were alone."""

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mmaction_lite import get_recipe
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.sources.source import open_sample
from mmaction_lite.errors import UserError
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.inference.predict import predict
from mmaction_lite.models import probe_attentive
from mmaction_lite.models.probe import Probe
from mmaction_lite.report.page import write_report
from mmaction_lite.training.feature_cache import FeatureCache
from mmaction_lite.training.loop import train
from mmaction_lite.training.probe import build_probe
from mmaction_lite.weights.card import card_of, load
from mmaction_lite.weights.checkpoint import load_state
from tests.probes import extraction, fixed_views, small_probe, write_encoder
from tests.training.test_loop import die_after, rows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder") / "w.safetensors")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tiny, encoder, cache, tmp_path_factory):
    """A finished run with exact features."""
    out = tmp_path_factory.mktemp("runs") / "probe"
    torch.set_num_threads(1)
    done = train(small_probe(storage="float32"), tiny, out, init_from=encoder, feature_cache=cache)
    return out, done


def test_the_result_is_an_ordinary_network(tiny, finished, encoder):
    out, done = finished
    names = {path.name for path in out.iterdir()}
    assert {"best.pt", "last.pt", "weights.safetensors", "encoder.safetensors", "val.npz"} <= names
    for file in (out, out / "weights.safetensors"):
        model = load(file)
        card = card_of(model)
        assert isinstance(model, Probe)
        assert (card.builder, card.classes, card.started_from) == (
            "probe_linear",
            ("down", "up"),
            "w.safetensors",
        )
        original = load(encoder).state_dict()
        assert all(torch.equal(original[name], w) for name, w in model.encoder.state_dict().items())
    result = evaluate(model, read_split(tiny, "val", card.classes), card.val)
    with np.load(out / "val.npz") as saved:
        np.testing.assert_allclose(saved["scores"], result.scores, atol=2e-5)
    assert result.metrics["top1"] == done.best_score
    assert predict(out, tiny / "val" / "up" / "12.mp4").labels[0] in ("up", "down")


@pytest.mark.parametrize(("storage", "tolerance"), [("float32", 0.0), ("float16", 2e-3)])
def test_the_network_computes_on_clips_what_the_head_computes_on_features(
    tiny, finished, encoder, tmp_path, storage, tolerance
):
    model: Any = load(finished[0])
    samples = read_split(tiny, "val", ("down", "up"))
    computed = extraction(model, storage)
    views = fixed_views()
    stored = computed.fill(FeatureCache(tmp_path, computed.key(views), print), samples, views)
    features = torch.from_numpy(np.stack([stored.of(i).values[0] for i in range(6)])).float()
    pixels = []
    for i in range(6):
        with open_sample(samples, i) as source:
            pixels.append(torch.from_numpy(card_of(model).val.read(source)))
    with torch.no_grad():
        on_features = model.head(features)
        on_clips = model(torch.cat([card_of(model).val.prepare(clip) for clip in pixels]))
    torch.testing.assert_close(on_clips, on_features, rtol=tolerance, atol=tolerance)
    if tolerance == 0:
        assert torch.equal(on_clips, on_features)


def test_every_head_is_trained_as_if_it_were_alone(tiny, finished, encoder, cache, tmp_path):
    out, _ = finished
    together = small_probe(storage="float32")
    assert together.probe is not None
    state = load_state(out / "last.pt")["model"]
    for number, (lr, decay) in enumerate(together.probe.heads):
        settings = replace(together.probe, learning_rates=(lr,), weight_decays=(decay,))
        alone = replace(together, probe=settings)
        train(alone, tiny, tmp_path / str(number), init_from=encoder, feature_cache=cache)
        own = load_state(tmp_path / str(number) / "last.pt")["model"]
        for name, value in own.items():
            assert torch.equal(value, state[name.replace("heads.0", f"heads.{number}")]), name
    assert not torch.equal(state["heads.0.fc.weight"], state["heads.1.fc.weight"])


def test_clipped_gradients_are_those_of_each_head(tiny, encoder, cache, tmp_path):
    recipe = replace(small_probe(), max_grad_norm=1e-3)
    assert recipe.probe is not None
    train(recipe, tiny, tmp_path / "both", init_from=encoder, feature_cache=cache)
    alone = replace(recipe, probe=replace(recipe.probe, learning_rates=(3e-2,)))
    train(alone, tiny, tmp_path / "one", init_from=encoder, feature_cache=cache)
    one, both = (load_state(tmp_path / name / "last.pt")["model"] for name in ("one", "both"))
    assert torch.equal(one["heads.0.fc.weight"], both["heads.1.fc.weight"])


def test_validations_list_all_heads_and_keep_the_best(finished):
    out, done = finished
    validations = [row for row in rows(out) if row.get("split") == "val"]
    assert [row["epoch"] for row in validations] == [2, 4, 6]
    for row in validations:
        assert [head["lr"] for head in row["heads"]] == [3e-3, 3e-2]
        assert row["top1"] == max(head["top1"] for head in row["heads"])
        assert row["heads"][row["best_head"]]["top1"] == row["top1"]
    assert done.best_score == max(row["top1"] for row in validations)


def test_a_report_shows_all_heads(finished, tmp_path):
    page = write_report([finished[0]], tmp_path / "report.html").read_text()
    assert "Heads of the probe" in page
    for text in ("0.003", "0.03", "0.1"):
        assert f'<td class="number">{text}' in page


@pytest.mark.parametrize("steps", [1, 7])
def test_a_killed_probe_resumes_bit_for_bit(tiny, finished, encoder, cache, tmp_path, monkeypatch, steps):
    out, _ = finished
    recipe = small_probe(storage="float32")
    with monkeypatch.context() as patch:
        die_after(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tiny, tmp_path / "run", init_from=encoder, feature_cache=cache)
    moved = tmp_path / "elsewhere.safetensors"
    done = train(recipe, tiny, tmp_path / "run", init_from=moved, feature_cache=cache, resume=True)
    assert done.step == 18
    for name in ("last.pt", "best.pt"):
        one, other = load_state(out / name), load_state(tmp_path / "run" / name)
        assert one["progress"] == other["progress"]
        assert one["model"].keys() == other["model"].keys()
        assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())
    assert rows(out) == rows(tmp_path / "run")


def test_a_resumed_run_has_the_same_encoder(tiny, finished, encoder, cache, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    recipe = replace(small_probe(storage="float32"), epochs=8, modified=("epochs=8",))
    assert train(recipe, tiny, run, feature_cache=cache, resume=True).step == 24
    (run / "encoder.safetensors").unlink()
    with pytest.raises(UserError, match=r"encoder\.safetensors: no such file; pass the weights"):
        train(recipe, tiny, run, feature_cache=cache, resume=True)


def test_augmented_passes_and_labels_of_mirrored_views(tiny, encoder, cache, tmp_path):
    recipe = small_probe(passes=3)
    assert recipe.train.flip == 0.5
    train(recipe, tiny, tmp_path / "run", init_from=encoder, feature_cache=cache)
    text = (tmp_path / "run" / "recipe.txt").read_text()
    assert "passes=3" in text
    assert train(recipe, tiny, tmp_path / "run", resume=True, feature_cache=cache).step == 18


def test_an_attentive_probe_with_the_encoder_of_the_weights(tiny, encoder, cache, tmp_path):
    recipe = get_recipe("probe_attentive_1x1x8_20e_own_rgb")
    model = replace_arguments(recipe.model, heads=4, depth=2, frame_code=True)
    recipe = replace(recipe, model=model, epochs=2, batch_size=4)
    train(recipe, tiny, tmp_path / "run", init_from=encoder, feature_cache=cache)
    found = load(tmp_path / "run")
    assert card_of(found).builder == probe_attentive.__name__
    assert card_of(found).arguments["frame_code"] is True
    validation = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert len(validation["heads"]) == 20


def replace_arguments(model, **arguments):
    return type(model)(model.builder, **model.arguments | arguments)


def test_broken_clips_are_in_the_quarantine(tiny, encoder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny, data)
    for i in range(30, 60):
        shutil.copy(tiny / "train" / "up" / "0.mp4", data / "train" / "up" / f"{i}.mp4")
    (data / "train" / "up" / "broken.mp4").write_bytes(b"x")
    (data / "val" / "up" / "broken.mp4").write_bytes(b"x")
    train(small_probe(), data, tmp_path / "run", init_from=encoder, feature_cache=tmp_path / "cache")
    listed = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert [row["path"].rpartition("/")[2] for row in listed] == ["broken.mp4"]
    validation = [row for row in rows(tmp_path / "run") if row.get("split") == "val"][-1]
    assert (validation["videos"], validation["unreadable"]) == (7, 1)


def test_a_probe_without_initial_weights_is_an_error(tiny, tmp_path):
    assert build_probe is not None
    with pytest.raises(UserError, match="pass the weights of the encoder as --init-from"):
        train(small_probe(), tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()
