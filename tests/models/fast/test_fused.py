"""Fused convolutions, compared with plain ones, and memory of compiled networks."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.fast import fused
from tests.models.test_models import assert_same, build, clip


@pytest.mark.parametrize(
    "name",
    [
        "tsm_r18",
        "r3d_r18",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("tsn_r18", "slowfast_r50_4x16", "r2plus1d_r34")
        ),
    ],
)
def test_fused_convolutions_are_those_followed_by_sum_and_activation(name: str, monkeypatch: Any) -> None:
    """Also for other input sizes, copied, pickled and compiled; with gradients, plain operators run."""
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
        monkeypatch.setattr(fused, "has_fused", lambda: False)
        expected = [model(each) for each in (x, larger, x)]
    for one, other in zip([*got, *again, compiled], [*expected, *expected[:1] * 3], strict=True):
        assert_same(one, other, 1e-5)
    monkeypatch.undo()
    x.requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None


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
