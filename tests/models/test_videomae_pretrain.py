"""Pre-training of VideoMAE: tube masks, targets, and the error of a clip by hand."""

import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.models.videomae_pretrain import (
    VideoMAEPretraining,
    normalize,
    pixels_of_tokens,
    videomae_pretrain_base,
    videomae_pretrain_large,
    videomae_pretrain_small,
)
from mmaction_lite.models.vit import sinusoid_table

SIZE = (4, 8, 12)


def thin(**options) -> VideoMAEPretraining:
    torch.manual_seed(0)
    return videomae_pretrain_small(
        width=12, depth=2, heads=3, decoder_depth=1, patch=4, mask_ratio=0.7, **options
    )


def test_masks_are_tubes():
    model = thin()
    visible, hidden = model.masks(3, (2, 2, 3), torch.device("cpu"))
    assert (visible.shape, hidden.shape) == ((3, 4), (3, 8))
    places = hidden.reshape(3, 2, 4)
    assert torch.equal(places[:, 0] + 6, places[:, 1])
    for one, other in zip(visible, hidden, strict=True):
        assert sorted([*one.tolist(), *other.tolist()]) == list(range(12))
        assert other.tolist() == sorted(other.tolist())
    assert not torch.equal(hidden[0], hidden[1])
    model.eval()
    _, fixed = model.masks(3, (2, 2, 3), torch.device("cpu"))
    assert torch.equal(fixed[0], fixed[1])
    assert torch.equal(fixed, model.masks(3, (2, 2, 3), torch.device("cpu"))[1])


@pytest.mark.parametrize("ratio", [0.05, 1.0])
def test_a_mask_hides_some_tokens(ratio):
    model = videomae_pretrain_small(width=12, depth=1, patch=4, mask_ratio=ratio)
    with pytest.raises(UserError, match=rf"^mask_ratio is {ratio:g}, which hides .* of the 6 tokens"):
        model(torch.rand(1, 3, *SIZE))


def test_targets_are_normalized_pixels_of_each_token_and_channel():
    x = torch.rand(2, 3, *SIZE)
    target = normalize(pixels_of_tokens(x, (2, 4, 4)), "token").flatten(2)
    assert target.shape == (2, 2 * 2 * 3, 2 * 4 * 4 * 3)
    cell = x[1, :, 2:4, 4:8, 8:12]  # time 1, row 1, column 2
    expected = (cell - cell.mean((1, 2, 3), keepdim=True)) / cell.std((1, 2, 3), keepdim=True)
    torch.testing.assert_close(target[1, 11], expected.permute(1, 2, 3, 0).flatten(), rtol=1e-4, atol=1e-4)
    scaled = x * torch.tensor([2.0, 3.0, 4.0]).reshape(3, 1, 1, 1) - 1
    again = normalize(pixels_of_tokens(scaled, (2, 4, 4)), "token").flatten(2)
    torch.testing.assert_close(again, target, rtol=1e-4, atol=1e-4)


def test_targets_of_a_clip_keep_the_differences_between_tokens():
    x = torch.rand(2, 3, *SIZE)
    x[0, :, :, :, 8:] *= 0.01  # a plain surface
    pixels = pixels_of_tokens(x, (2, 4, 4))
    target = normalize(pixels, "clip")
    expected = (pixels[0] - pixels[0].mean((0, 1))) / pixels[0].std((0, 1), correction=0)
    torch.testing.assert_close(target[0], expected, rtol=5e-3, atol=5e-3)
    assert normalize(pixels, "token")[0, 2].std() > 0.9
    assert target[0, 2].std() < 0.1


@pytest.mark.parametrize("target", ["token", "clip"])
def test_the_error_without_a_prediction_is_one(target):
    """Scores are therefore the explained share of the variance of the hidden pixels."""
    model = thin(target=target).eval()
    torch.nn.init.zeros_(model.decoder.head.weight)
    torch.testing.assert_close(model(torch.rand(2, 3, *SIZE)), torch.ones(2, 1), rtol=0, atol=0.04)


def test_the_error_is_that_of_the_hidden_tokens():
    """Token by token, with the hidden ones last in the decoder."""
    model, x = thin().eval(), torch.rand(1, 3, *SIZE)
    visible, hidden = model.masks(1, (2, 2, 3), x.device)
    encoder, decoder = model.encoder, model.decoder
    tokens = encoder.patch_embed(x) + sinusoid_table(12, 12)
    tokens = tokens[:, visible[0]]
    for block in encoder.blocks:
        tokens = block(tokens)
    tokens = model.encoder_to_decoder(encoder.norm(tokens))
    table = sinusoid_table(12, 6)
    joined = torch.cat([tokens + table[visible[0]], (model.mask_token + table[hidden[0]])], 1)
    for block in decoder.blocks:
        joined = block(joined)
    predicted = decoder.head(decoder.norm(joined))[:, -8:]
    target = normalize(pixels_of_tokens(x, (2, 4, 4)), "token").flatten(2)
    expected = (predicted - target[:, hidden[0]]).square().mean()
    torch.testing.assert_close(model(x), expected.reshape(1, 1))


def test_a_step_reaches_every_parameter():
    model = thin().train()
    model(torch.rand(2, 3, *SIZE)).mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.head is model.decoder.head
    parameters = [parameter for layer in model.layers() for parameter in layer.parameters()]
    assert set(model.parameters()) - set(parameters) == {model.mask_token}


@pytest.mark.parametrize(
    ("builder", "decoder_width", "decoder_depth", "depth"),
    [
        (videomae_pretrain_small, 192, 4, 12),
        (videomae_pretrain_base, 384, 4, 12),
        (videomae_pretrain_large, 512, 12, 24),
    ],
)
def test_published_sizes(builder, decoder_width, decoder_depth, depth):
    with torch.device("meta"):
        model = builder()
    assert model.encoder_to_decoder.out_features == decoder_width
    assert (len(model.encoder.blocks), len(model.decoder.blocks)) == (depth, decoder_depth)
    assert model.decoder.head.out_features == 1536
    assert model.decoder.blocks[0].attn.heads == decoder_width // 64


@pytest.mark.slow
@pytest.mark.parametrize("target", ["token", "clip"])
@pytest.mark.usefixtures("one_thread")
def test_it_learns_a_few_clips_by_heart(target):
    """The explained variance approaches 1: no hidden token lacks its position, target or gradient."""
    torch.manual_seed(0)
    model = videomae_pretrain_small(
        width=64, depth=2, heads=4, decoder_width=64, decoder_depth=2, patch=4, mask_ratio=0.5, target=target
    )
    clips = torch.nn.functional.interpolate(torch.rand(2, 3, 2, 4, 6), SIZE, mode="trilinear")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=350)
    for _ in range(350):
        optimizer.zero_grad()
        model(clips).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    assert model.eval()(clips).max() < 0.1
