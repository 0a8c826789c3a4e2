"""One measured process."""

import torch
from torch import nn

from mmaction_lite.benchmark.worker import Lapped, Stopwatch, failure, kind
from mmaction_lite.errors import UserError


def test_operators_and_kernels_are_told_apart():
    for name, expected in {
        "aten::mkldnn_convolution": "products",
        "aten::convolution_backward": "products",
        "aten::addmm_": "products",
        "sm90_xmma_wgrad_implicit_gemm_bf16": "products",
        "aten::native_batch_norm_backward": "normalisation",
        "triton_poi_fused__native_batch_norm_convolution_backward_3": "other",
        "aten::add_": "other",
        "aten::threshold_backward": "other",
    }.items():
        assert kind(name) == expected, name


def test_laps_add_up_to_the_iteration():
    watch = Stopwatch(torch.device("cpu"))
    watch.start()
    model = Lapped(nn.Linear(3, 2), watch)
    model(torch.zeros(1, 3))
    watch.lap("backward")
    seconds = watch.stop()
    assert set(seconds) == {"iteration", "normalise", "forward", "backward"}
    assert sum(value for name, value in seconds.items() if name != "iteration") <= seconds["iteration"]


def test_a_failure_is_one_line():
    for error in (UserError("no clip can be read"), KeyError("weights"), ValueError("two\nlines")):
        (message,) = failure(error).values()
        assert "\n" not in message
        assert str(error).split("\n")[0] in message
