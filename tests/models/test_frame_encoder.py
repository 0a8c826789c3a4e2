"""Image models of timm on frames. Most tests need timm; `make test` runs without it."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.frame_encoder import (
    FrameEncoder,
    TimmFrames,
    frame_code,
    frame_encoder,
    image_config,
    tsn_timm,
)
from mmaction_lite.models.network import layers


class Image(nn.Module):
    """An image model with the interface of timm: a class token, two registers, patches of 4 pixels."""

    num_prefix_tokens = 3

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 32, 4, 4)
        self.patch_embed.patch_size = (4, 4)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        self.blocks = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 7)

    def forward_features(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)
        prefix = patches.new_full((len(x), 3, 32), 5.0)
        return self.norm(self.blocks(torch.cat([prefix, patches], 1)))

    def forward_head(self, x: Tensor, pre_logits: bool) -> Tensor:
        return x[:, 3:].mean(1)


def build(**arguments: Any) -> FrameEncoder:
    torch.manual_seed(0)
    return FrameEncoder(TimmFrames(Image(), **{"tokens": "patches", **arguments}), 32, 5, 0.0).eval()


def test_tokens_are_the_patches_of_all_frames_with_their_code() -> None:
    model, x = build(), torch.randn(2, 3, 3, 8, 12)
    tokens = model.tokens(x)
    assert tokens.shape == (2, 18, 32)
    assert model.grid(3, 8, 12) == (3, 2, 3)
    own = model.encoder.image_model.forward_features(x[1, :, 2][None])[0, 3:]  # pyright: ignore
    torch.testing.assert_close(tokens[1, 12:], own + frame_code(3, tokens)[2])
    torch.testing.assert_close(model(x), model.head(model.features(x)[:, 0]))


def test_logits_depend_on_the_order_of_frames_by_the_code_only() -> None:
    model, x = build(), torch.randn(1, 3, 4, 8, 8)
    nn.init.normal_(model.head.weight)
    assert not torch.allclose(model(x), model(x.flip(2)), rtol=1e-4)
    plain = model.encoder(x[0].transpose(0, 1)).flatten(0, 1)[None]
    torch.testing.assert_close(model.pooler(plain), model.pooler(plain.flip(1)))


def test_pooled_tokens_are_one_for_each_frame() -> None:
    model = build(tokens="pooled")
    assert model.tokens(torch.randn(2, 3, 3, 8, 12)).shape == (2, 3, 32)
    assert model.grid(3, 8, 12) == (3, 1, 1)


def test_layers_and_trained_parameters() -> None:
    model = build().train()
    found = layers(model)
    assert [len(list(layer.parameters())) > 0 for layer in found] == [True] * 6
    assert found[-1] is model.head
    model(torch.randn(2, 3, 2, 8, 8)).square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.grad is not None}
    assert not any(name.startswith("encoder.image_model.head") for name in trained)


def test_sizes_that_are_no_whole_patches_are_refused() -> None:
    with pytest.raises(
        UserError, match="frames have 8x10 pixels; expected multiples of 4x4, the size of a patch"
    ):
        build()(torch.zeros(1, 3, 1, 8, 10))


class MergedPatches(Image):
    """An image model that merges its tokens, and whose patches have no size."""

    feature_info = ({"reduction": 4}, {"reduction": 8})

    def __init__(self) -> None:
        super().__init__()
        del self.patch_embed.patch_size


@pytest.mark.parametrize(("step", "grid"), [(None, (1, 2)), (4, (2, 3)), ((4, 2), (2, 6))])
def test_image_models_name_their_tokens_in_several_ways(step: Any, grid: tuple[int, int]) -> None:
    image = Image() if step else MergedPatches()
    if step:
        image.patch_embed.patch_size = step  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    assert TimmFrames(image, "patches").grid(8, 12) == grid


@pytest.mark.parametrize("width", [6, 7])
def test_the_code_of_frames(width: int) -> None:
    code = frame_code(3, torch.zeros(1, width, dtype=torch.float64))
    assert code.dtype == torch.float64
    assert code.shape == (3, width)
    assert code[0, :3].tolist() == [0, 0, 0] if width == 6 else True
    assert float(code[2, 0]) == pytest.approx(float(torch.tensor(2.0).sin()))
    assert len({tuple(row) for row in code.tolist()}) == 3


@pytest.mark.parametrize("builder", [frame_encoder, tsn_timm])
def test_a_missing_timm_is_one_line(builder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm is not installed; .*pip install mmaction-lite\[timm\]"):
        builder()


def test_an_unknown_image_model_names_the_nearest() -> None:
    pytest.importorskip("timm")
    with pytest.raises(
        UserError, match="no image model 'vit_small_patch16_dino'; nearest: vit_small_patch16_dino"
    ):
        frame_encoder(image_model="vit_small_patch16_dino")


@pytest.mark.parametrize(
    ("name", "size", "grid", "mean"),
    [
        ("vit_small_patch16_dinov3", 64, (2, 4, 4), 123.675),
        ("vit_base_patch16_siglip_224", 224, (2, 14, 14), 127.5),
        ("convnext_atto", 64, (2, 2, 2), 123.675),
        ("swin_tiny_patch4_window7_224", 224, (2, 7, 7), 123.675),
        ("hiera_tiny_224", 224, (2, 7, 7), 123.675),
        ("xcit_nano_12_p16_224", 64, (2, 4, 4), 123.675),
        ("mobilenetv3_small_100", 64, (2, 2, 2), 123.675),
    ],
)
def test_image_models_of_timm(name: str, size: int, grid: tuple[int, ...], mean: float) -> None:
    pytest.importorskip("timm")
    x = torch.randn(1, 3, 2, size, size)
    for tokens in ("patches", "pooled"):
        model = frame_encoder(num_classes=5, image_model=name, tokens=tokens)
        model(x).square().sum().backward()
        assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
        assert model.tokens(x).shape[1] == torch.Size(model.grid(2, size, size)).numel()
    assert frame_encoder(image_model=name).grid(2, size, size) == grid
    assert image_config(name).mean[0] == mean
    assert tsn_timm(num_classes=5, image_model=name)(x).shape == (1, 5)


def test_an_image_model_with_fixed_positions_refuses_other_sizes() -> None:
    pytest.importorskip("timm")
    model = frame_encoder(image_model="vit_base_patch16_siglip_224")
    with pytest.raises(
        UserError, match="frames have 64x64 pixels; expected 224x224, for which the image model"
    ):
        model(torch.zeros(1, 3, 1, 64, 64))
    smaller = frame_encoder(num_classes=5, image_model="vit_base_patch16_siglip_224", image_size=64)
    assert smaller(torch.zeros(1, 3, 1, 64, 64)).shape == (1, 5)
    with pytest.raises(UserError, match="convnext_atto accepts frames of any size"):
        frame_encoder(image_model="convnext_atto", image_size=64)
