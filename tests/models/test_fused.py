"""What convolutions do beside the sum: activations in one go, no masks kept, no gradients left unwritten."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.convolution import Conv2d, Conv3d, conv2d
from mmaction_lite.models.fast import fused
from mmaction_lite.models.fast.fused import Epilogue
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import ResNet
from tests.models.test_models import assert_same, build, clip


@pytest.mark.parametrize("is_cast", [True, False])
@pytest.mark.parametrize(("frames", "kernel"), [(2, 3), (1, 3), (3, 5)])
def test_gradients_in_bfloat16_are_right_where_a_kernel_is_longer_than_the_clip(
    frames: int, kernel: int, is_cast: bool
) -> None:
    """Some processors' kernels leave memory of the weights' gradient as it was; so it is filled before."""
    torch.manual_seed(0)
    conv = Conv3d(144, 64, (kernel, 1))
    x, grad = torch.randn(2 * frames, 144, 6, 6), torch.randn(2 * frames, 64, 6, 6)
    conv(x, 2).backward(grad)
    expected, conv.weight.grad = conv.weight.grad, None
    if is_cast:
        conv.path = "native"
        conv.bfloat16()
        out = conv(x.bfloat16(), 2)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(x, 2)
    left = [torch.full((conv.weight.numel() * n // 2,), torch.nan) for n in (1, 2, 4)]
    del left
    out.backward(grad.to(out.dtype))
    assert expected is not None
    assert conv.weight.grad is not None
    assert float((conv.weight.grad - expected).norm()) < 0.02 * float(expected.norm())


@pytest.mark.parametrize("name", ["tsn_r18", "tsm_r18", "slowfast_r50_4x16", "r2plus1d_r34", "r3d_r18"])
def test_fused_convolutions_are_those_followed_by_sum_and_activation(name: str, monkeypatch: Any) -> None:
    """Whatever they saw before, copied, saved and compiled; with gradients they are plain ones."""
    torch.compiler.reset()
    model, x = optimize_for_inference(build(name)), clip(name)
    larger = torch.cat([x, x.flip(0), x])[..., : x.shape[-1] - 7]
    with torch.no_grad():
        got = [model(each) for each in (x, larger, x)]
        again = [copy.deepcopy(model)(x), pickle.loads(pickle.dumps(model))(x)]
        compiled = torch.compile(model, fullgraph=True, backend="eager")(x)
        calls = 0

        def count(self: Any, *arguments: Any) -> Tensor:
            nonlocal calls
            calls += 1
            return original(self, *arguments)

        original = fused.Epilogue.convolve
        monkeypatch.setattr(fused.Epilogue, "convolve", count)
        model(x)
        assert calls > 10
        monkeypatch.setattr(fused, "HAS_FUSED", False)
        expected = [model(each) for each in (x, larger, x)]
    for one, other in zip([*got, *again, compiled], [*expected, *expected[:1] * 3], strict=True):
        assert_same(one, other, 1e-5)
    monkeypatch.undo()
    x.requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None


class Twice(ResNet):
    """A network of somebody else that needs what a stem yields twice."""

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        stem = self.run_stem(x, batch_size)
        return self.get_submodule("layer1")(stem, batch_size) + stem


def test_nothing_is_written_over_that_others_may_hold() -> None:
    torch.manual_seed(0)
    net = Twice(18, 8, conv2d(7), lambda stage, block: [conv2d(3)] * 2 + [conv2d(1)], None)
    model = Recognizer(net, 8, 5, 0.0).eval()
    x, fast = clip("tsn_r18"), optimize_for_inference(model)
    with torch.no_grad():
        before = x.clone()
        assert_same(fast(x), model(x))
        assert torch.equal(x, before)
    endings = [module.epilogue for module in fast.modules() if isinstance(module, Conv2d)]
    overwriting = [isinstance(epilogue, Epilogue) and epilogue.overwrites for epilogue in endings]
    assert sum(overwriting) == 7  # of eight blocks, all but the first


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiler_keeps_no_masks_beside_activations_that_are_convolved_along_time() -> None:
    from functorch.compile import min_cut_rematerialization_partition
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func
    from torch._inductor.decomposition import select_decomp_table

    kept: list[torch.dtype] = []

    def look(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        (outputs,) = graph.graph.find_nodes(op="output")
        values = [node.meta["val"] for node in outputs.args[0] if isinstance(node, torch.fx.Node)]
        kept.extend(value.dtype for value in values if value.ndim >= 4)
        return make_boxed_func(graph)

    torch.compiler.reset()
    model, x = build("r2plus1d_r18").train(), clip("r2plus1d_r18")
    backend = aot_autograd(
        fw_compiler=look,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
    torch.compile(model, backend=backend, fullgraph=True)(x)
    assert kept.count(torch.float32) > 60
    assert kept.count(torch.bool) == 1  # of the last block, whose activation is averaged
