"""Weights of timm's image models in video networks. The tests with real models need timm."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.errors import UserError
from mmaction_lite.models.frame_encoder import FrameEncoder, TimmFrames, frame_encoder, tsn_timm
from mmaction_lite.weights import load
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.converters import convert, timm
from tests.models.test_frame_encoder import Image
from tests.weights.test_goldens import draw, error, read, weights

DINOV3, SIGLIP = "timm__vit_small_patch16_dinov3", "timm__vit_base_patch16_siglip_224"


def test_an_image_model_fills_the_encoder_and_nothing_else() -> None:
    image, model = Image(), FrameEncoder(TimmFrames(Image(), "patches"), 32, 5, 0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = image.state_dict() | {"fc_norm.weight": torch.ones(32)}
    conversion = convert(given, model)
    assert conversion.source == timm.NAME
    assert conversion.unused == ["fc_norm.weight"]
    kept = [name for name in before if not name.startswith("encoder.")]
    assert sorted(conversion.reinitialized) == sorted(kept)
    torch.testing.assert_close(model.encoder.image_model.state_dict(), image.state_dict(), rtol=0, atol=0)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in kept)
    del given["blocks.0.bias"]
    with pytest.raises(UserError, match=r"1 are missing \(encoder\.image_model\.blocks\.0\.bias"):
        convert(given, model)


def test_tables_are_those_of_networks_with_an_image_model() -> None:
    assert [table.prefix for table in timm.tables(["backbone.network.a", "head.weight"])] == [
        "backbone.network."
    ]
    assert timm.tables(["encoder.blocks.0.weight"]) == []


def image_of(model: Any) -> Any:
    return model.encoder.image_model if isinstance(model, FrameEncoder) else model.backbone.network


@pytest.mark.parametrize("builder", [frame_encoder, tsn_timm])
def test_pooled_features_of_dinov3_are_those_of_the_reference(builder: Any) -> None:
    pytest.importorskip("timm")
    golden = read(DINOV3)
    model = builder(num_classes=5).eval()
    conversion = convert(weights(golden), model)
    assert conversion.unused == []
    assert conversion.normalize == Normalize()
    x = draw(golden["input_shape"], 0, DINOV3)
    with torch.inference_mode():
        if isinstance(model, FrameEncoder):
            features = model.encoder(x).mean(1)
        else:
            features = model.features(x.transpose(0, 1)[None])[0]
    assert error(features, golden["logits"]) <= 1e-5


@pytest.mark.slow
def test_names_of_siglip_are_complete() -> None:
    pytest.importorskip("timm")
    with torch.device("meta"):
        given = {key: torch.empty(shape) for key, shape in read(SIGLIP)["shapes"].items()}
        model = frame_encoder(image_model="vit_base_patch16_siglip_224")
    table = timm.tables(model.state_dict())[0]
    assert table.matches(given)
    assert sorted(map(str, table.rename(given).values())) == sorted(
        n for n in model.state_dict() if n.startswith("encoder.")
    )
    assert table.normalize(model) == Normalize(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))


def test_weights_files_name_the_image_model(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    from mmaction_lite.recipes.frame import frame_recipe

    recipe = frame_recipe("convnext_atto", num_frames=2, size=64)
    assert recipe.normalize == Normalize()
    model = recipe.model(num_classes=2).eval()
    save_weights(tmp_path / "w.safetensors", model.state_dict(), ModelCard.of(recipe, ("a", "b")))
    x = torch.randn(1, 3, 2, 64, 64)
    with torch.inference_mode():
        assert torch.equal(load(tmp_path / "w.safetensors")(x), model(x))
