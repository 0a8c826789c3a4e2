"""The logits of an online TSM frame by frame equal those that it computes in a clip."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mmaction_lite import models
from mmaction_lite.errors import UserError
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.online_step import OnlineStep
from tests.models.test_models import assert_same, build

BUILDERS = ["tsm_online_r10", "tsm_online_r50", "tsm_online_mobilenetv2"]


def frames(number: int = 6, batch: int = 2) -> Tensor:
    """Clips (B, 3, T, H, W)."""
    return torch.randn(batch, 3, number, 42, 56, generator=torch.Generator().manual_seed(1))


def run(step: OnlineStep, clip: Tensor) -> Tensor:
    """The logits (B, T, K) of the frames of clips, one frame at a time."""
    logits, caches = [], ()
    with torch.inference_mode():
        for frame in clip.unbind(2):
            found, *caches = step(frame, *caches)
            logits.append(found)
    return torch.stack(logits, 1)


def per_frame(model: nn.Module, clip: Tensor) -> Tensor:
    """The logits (B, T, K) of the frames of clips, all frames at once."""
    with torch.inference_mode():
        return model.head(model.features(clip))  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("name", BUILDERS)
def test_a_stream_equals_the_clip(name: str, optimized: bool) -> None:
    model, clip = build(name).eval(), frames()
    expected = per_frame(model, clip)
    found = run(OnlineStep(optimize_for_inference(model) if optimized else model), clip)
    assert_same(found, expected)
    with torch.inference_mode():
        assert_same(found.mean(1), model(clip))  # the logits of a clip are the mean over its frames


def test_the_step_keeps_no_state_and_leaves_the_model_unchanged() -> None:
    model, clip = build("tsm_online_r10").eval(), frames()
    before, modules = copy.deepcopy(model.state_dict()), [type(module) for module in model.modules()]
    expected = per_frame(model, clip)
    step = OnlineStep(model)
    with torch.inference_mode():
        _, *first = step(clip[:, :, 0])
        copies = [cache.clone() for cache in first]
        second, *_ = step(clip[:, :, 1], *first)
        step(clip[:, :, 3], *first)
        again, *_ = step(clip[:, :, 1], *first)
    assert all(map(torch.equal, first, copies))
    assert torch.equal(second, again)
    assert [type(module) for module in model.modules()] == modules
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(per_frame(model, clip), expected)
    assert step.network.get_parameter("fc.weight") is model.get_parameter("fc.weight")


def test_initial_caches_are_the_start_of_a_stream() -> None:
    step, clip = OnlineStep(build("tsm_online_r10")), frames()
    caches = step.initial_caches(clip[:, :, 0])
    assert len(caches) == step.num_caches == 4
    assert caches[0].shape == (2, 2, 21, 28)  # a quarter of 8 channels
    with torch.inference_mode():
        for found, expected in zip(step(clip[:, :, 0], *caches), step(clip[:, :, 0]), strict=True):
            assert torch.equal(found, expected)


def test_streams_of_a_batch_are_independent() -> None:
    step, clip = OnlineStep(build("tsm_online_r10")), frames(batch=3)
    assert_same(run(step, clip), torch.cat([run(step, each) for each in clip.split(1)]))


@pytest.mark.slow
def test_the_step_is_exported_for_any_number_of_streams() -> None:
    step, clip = OnlineStep(build("tsm_online_r10")), frames(2)
    caches = step.initial_caches(clip[:, :, 0])
    batch = {0: torch.export.Dim("batch")}
    shapes = (batch, tuple(batch for _ in caches))
    exported = torch.export.export(step, (clip[:, :, 0], *caches), dynamic_shapes=shapes).module()
    with torch.inference_mode():
        _, *caches = step(clip[:1, :, 0])
        for found, expected in zip(
            exported(clip[:1, :, 1], *caches), step(clip[:1, :, 1], *caches), strict=True
        ):
            assert_same(found, expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (models.tsm_r10(), "depends on later frames; expected a network of tsm_online_r10"),
        (models.tsn_r10(), "Recognizer: is no online TSM"),
        (nn.Linear(2, 2), "Linear: is no online TSM"),
    ],
)
def test_other_networks_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        OnlineStep(model)


def test_a_wrong_number_of_caches_is_refused() -> None:
    step, clip = OnlineStep(build("tsm_online_r10")), frames(1)
    with pytest.raises(UserError, match="1 caches; expected 4, one for each shifted convolution"):
        step(clip[:, :, 0], torch.zeros(2, 2, 21, 28))
