"""Pre-training of VideoMAE: tube masks, targets, and the error of a clip by hand."""

import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.models.videomae_pretrain import (
    VideoMAEPretraining,
    normalized_pixels,
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
    target = normalized_pixels(x, (2, 4, 4))
    assert target.shape == (2, 2 * 2 * 3, 2 * 4 * 4 * 3)
    cell = x[1, :, 2:4, 4:8, 8:12]  # time 1, row 1, column 2
    expected = (cell - cell.mean((1, 2, 3), keepdim=True)) / cell.std((1, 2, 3), keepdim=True)
    torch.testing.assert_close(target[1, 11], expected.permute(1, 2, 3, 0).flatten(), rtol=1e-4, atol=1e-4)
    scaled = x * torch.tensor([2.0, 3.0, 4.0]).reshape(3, 1, 1, 1) - 1
    torch.testing.assert_close(normalized_pixels(scaled, (2, 4, 4)), target, rtol=1e-4, atol=1e-4)


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
    expected = (predicted - normalized_pixels(x, (2, 4, 4))[:, hidden[0]]).square().mean()
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
