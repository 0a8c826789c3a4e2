"""The contract of every builder, and equal results of the fast implementations."""

import inspect
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite import models
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.convolution import Conv2d, Conv3d
from mmaction_lite.models.fast.dispatch import Path
from tests.thin import clip_size, thin

# Parameters with 400 classes: those of the public implementations, and where these do not exist, of the same
# network counted from its published definition.
PARAMETERS = {
    "c2d_r50": 24_327_632,
    "hiera_base": 51_092_560,
    "hiera_base_plus": 69_392_240,
    "hiera_large": 213_091_600,
    "i3d_r50": 28_043_472,
    "i3d_r50_heavy": 28_043_472,
    "mc3_r18": 11_695_440,
    "mvit_v1_base": 36_610_672,
    "mvit_v2_base": 51_230_128,
    "mvit_v2_small": 34_537_744,
    "r2plus1d_r18": 31_505_325,
    "r2plus1d_r34": 63_759_281,
    "r2plus1d_r50": 28_107_600,
    "r3d_r18": 33_371_472,
    "slowfast_r50_4x16": 34_480_216,
    "slowfast_r50_8x8": 34_566_488,
    "slowfast_r101_8x8": 62_826_968,
    "slowonly_r50": 32_454_096,
    "slowonly_r101": 60_359_120,
    "swin3d_base": 88_048_984,
    "swin3d_small": 49_816_678,
    "swin3d_tiny": 28_158_070,
    "tsm_mobilenetv2": 2_736_272,
    "tsm_online_mobilenetv2": 2_736_272,
    "tsm_online_r50": 24_327_632,
    "tsm_r18": 11_381_712,
    "tsm_r34": 21_489_872,
    "tsm_r50": 24_327_632,
    "tsm_r101": 43_319_760,
    "tsn_r18": 11_381_712,
    "tsn_r34": 21_489_872,
    "tsn_r50": 24_327_632,
    "tsn_r101": 43_319_760,
    "uniformerv2_base": 114_552_208,
    "uniformerv2_large": 354_099_600,
    "videomae_base": 86_534_800,
    "videomae_large": 304_270_736,
    "videomae_small": 22_033_936,
    "x3d_l": 6_153_432,
    "x3d_m": 3_794_322,
    "x3d_s": 3_794_322,
    "x3d_xs": 3_794_322,
}
GIVEN = {"tsn", "tsn_timm", "frame_encoder"}  # builders that need an image network, or timm
# Token networks, whose parameters the test of each family counts.
TRANSFORMERS = {
    "vjepa2_giant",
    "vjepa2_huge",
    "vjepa2_large",
    "vjepa21_base",
    "vjepa21_giant",
    "vjepa21_gigantic",
    "vjepa21_large",
}
MMACTION2_FORM = {"lateral_norm": False, "slow_frames": "strided", "fast_first": True}
FORMS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in (*PARAMETERS, "tsn_r10", "tsm_r10", "tsm_online_r10")),
    *(("i3d_r50", {"non_local": mode}) for mode in ("dot_product", "embedded_gaussian", "gaussian")),
    ("tsm_r50", {"non_local": "embedded_gaussian"}),
    ("slowfast_r50_4x16", MMACTION2_FORM),
    ("c2d_r50", {"pool_padding": 0}),
    ("videomae_small", {"positions": "stored"}),
    ("uniformerv2_base", {"local": True}),
    *((name, {}) for name in ("vjepa2_large", "vjepa21_base")),
    ("swin3d_tiny", {"window": (16, 7, 7)}),
    ("x3d_s", {"shortcut_norm": False}),
]
SMALL = {"tsn_r10", "tsm_r10", "tsm_online_r10"}
# One form of each family is quick; these are deeper ones, or differ in few layers.
FURTHER = {name for name in PARAMETERS if "r101" in name} | {"slowfast_r50_8x8", "tsn_r34", "tsm_r34"}
FURTHER |= {"i3d_r50_heavy", "r2plus1d_r34", "r2plus1d_r50", "mc3_r18", "tsn_r50", "tsm_r50"}
FURTHER |= {"tsm_online_r50", "tsm_online_mobilenetv2", "tsn_r10", "videomae_base", "videomae_large"}
FURTHER |= {"swin3d_small", "swin3d_base"}
FURTHER |= {"hiera_base_plus", "hiera_large", "uniformerv2_large"}
FURTHER |= {"x3d_l", "x3d_m", "x3d_xs"}
FURTHER |= {"mvit_v1_base", "mvit_v2_base"}


def forms(quick: set[str]) -> pytest.MarkDecorator:
    """All builders and forms; only the quick ones in their default form are not slow."""
    cases = []
    for name, arguments in FORMS:
        marks = () if name in quick and not arguments else pytest.mark.slow
        cases.append(
            pytest.param(name, arguments, marks=marks, id=" ".join([name, *map(str, arguments.values())]))
        )
    return pytest.mark.parametrize(("name", "arguments"), cases)


each_form = forms({*PARAMETERS, *SMALL} - FURTHER)
each_traced_form = forms({"tsm_r10"})


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread; thin networks are slower with two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, **arguments: Any) -> Any:
    """A thin model, its normalizations as after some training."""
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=5, **thin(name), **arguments)
    train_norms(model)
    nn.init.normal_(model.head.weight)
    return model


def train_norms(model: nn.Module) -> None:
    """Give normalizations values as after some training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)  # pyright: ignore[reportArgumentType]
            nn.init.uniform_(module.running_var, 0.8, 1.5)  # pyright: ignore[reportArgumentType]


def clip(name: str, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *clip_size(name), generator=torch.Generator().manual_seed(1))


def assert_same(ours: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert float((ours - expected).abs().max()) <= tolerance * float(expected.abs().max())


def take(model: nn.Module, path: Path) -> None:
    for module in model.modules():
        if isinstance(module, Conv2d | Conv3d):
            module.path = path


def test_every_builder_is_exported_and_counted() -> None:
    builders = {name for name in models.__all__ if inspect.isfunction(getattr(models, name))}
    builders -= {name for name in builders if name.startswith("probe_")}
    assert builders - {*GIVEN, "optimize_for_inference"} == {
        *PARAMETERS,
        *TRANSFORMERS,
        *SMALL,
    }


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = getattr(models, name)()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_parameters_of_the_other_published_forms() -> None:
    with torch.device("meta"):
        forms = {
            34_479_288: models.slowfast_r50_4x16(lateral_norm=False),
            34_565_560: models.slowfast_r50_8x8(lateral_norm=False),
            35_397_840: models.i3d_r50(non_local="dot_product"),
            3_794_274: models.x3d_m(shortcut_norm=False),
            6_153_384: models.x3d_l(shortcut_norm=False),
        }
    for count, model in forms.items():
        assert sum(parameter.numel() for parameter in model.parameters()) == count


@each_form
def test_a_step_reaches_every_parameter(name: str, arguments: dict[str, Any]) -> None:
    model = build(name, dropout=0.3, **arguments).train()
    logits = model(clip(name))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    trained = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    unreached = [key for key, grad in trained.items() if grad is None or not grad.isfinite().all()]
    assert not unreached
    assert model.dropout.p == 0.3


@pytest.mark.parametrize(
    "name",
    ["tsm_r10", "i3d_r50", "slowfast_r50_4x16", "r2plus1d_r18", "videomae_small", "x3d_s", "mvit_v2_small"],
)
def test_clips_of_a_batch_do_not_see_each_other(name: str) -> None:
    model, x = build(name).eval(), clip(name)
    with torch.inference_mode():
        assert_same(model(x), torch.cat([model(x[:1]), model(x[1:])]))


@pytest.mark.parametrize(
    ("name", "blind"),
    [
        ("tsn_r10", True),
        ("tsn_r18", True),
        ("tsn_r50", True),
        ("c2d_r50", True),
        ("tsm_r10", False),
        ("tsm_online_r10", False),
        ("tsm_r50", False),
        ("slowonly_r50", False),
        ("r2plus1d_r18", False),
        ("videomae_small", False),
        ("x3d_s", False),
        ("mvit_v2_small", False),
    ],
)
def test_which_families_depend_on_the_order_of_frames(name: str, blind: bool) -> None:
    model, x = build(name).eval(), clip(name)
    with torch.inference_mode():
        logits, reversed_logits = model(x), model(x.flip(2))
    difference = float((logits - reversed_logits).abs().max() / logits.abs().max())
    assert difference < 1e-5 if blind else difference > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tsm_r50", "slowonly_r50", "i3d_r50", "r2plus1d_r34", "slowfast_r50_4x16"])
def test_gradients_do_not_depend_on_the_path(name: str) -> None:
    model, x = build(name).double().train(), clip(name).double()
    gradients = []
    paths: tuple[Path, ...] = ("native", "products")
    for path in paths:
        take(model, path)
        model.zero_grad()
        torch.manual_seed(2)  # for dropout
        functional.cross_entropy(model(x), torch.tensor([1, 3])).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for native, products in zip(*gradients, strict=True):
        assert float((native - products).norm()) <= 1e-8 * float(native.norm()) + 1e-12


@each_form
def test_optimizing_for_inference_changes_rounding_only(name: str, arguments: dict[str, Any]) -> None:
    model, x = build(name, **arguments).eval(), clip(name)
    trained = [parameter.requires_grad for parameter in model.parameters()]
    optimized = optimize_for_inference(model)
    assert not [module for module in optimized.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert any(trained)
    with torch.inference_mode():
        assert_same(optimized(x), model(x), 2e-5)


@each_traced_form
def test_one_graph(name: str, arguments: dict[str, Any]) -> None:
    torch.compiler.reset()
    model, x = build(name, **arguments).eval(), clip(name)
    with torch.no_grad():
        assert_same(torch.compile(model, fullgraph=True, backend="eager")(x), model(x))


def really_compiled(test: Any) -> Any:
    """Mark a test that uses `torch.compile`, whose imports raise deprecation warnings of PyTorch."""
    reason = "torch.compile needs a C++ compiler on processors"
    test = pytest.mark.skipif(not shutil.which("g++"), reason=reason)(test)
    return pytest.mark.slow(pytest.mark.filterwarnings("ignore::DeprecationWarning")(test))


@really_compiled
@pytest.mark.parametrize(
    "name",
    [
        "tsn_r18",
        "tsm_r18",
        "i3d_r50",
        "c2d_r50",
        "slowonly_r50",
        "slowfast_r50_4x16",
        "r2plus1d_r18",
        "r3d_r18",
        "x3d_s",
    ],
)
def test_compiled_networks_give_the_same_logits(name: str) -> None:
    torch.compiler.reset()
    model, x = build(name).eval(), clip(name)
    with torch.no_grad():
        assert_same(torch.compile(model, fullgraph=True)(x), model(x), 2e-5)


@really_compiled
def test_a_compiled_training_step_gives_the_same_gradients() -> None:
    torch.compiler.reset()
    model, x = build("tsm_r10", dropout=0.0).double().train(), clip("tsm_r10").double()
    gradients = []
    for run in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        functional.cross_entropy(run(x), torch.zeros(len(x), dtype=torch.long)).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for eager, compiled in zip(*gradients, strict=True):
        assert_same(compiled, eager, 1e-9)


@each_traced_form
def test_export_with_any_batch(name: str, arguments: dict[str, Any]) -> None:
    model = build(name, **arguments).eval()
    batch = {0: torch.export.Dim("batch")}
    with torch.no_grad():
        exported = torch.export.export(model, (clip(name),), dynamic_shapes=(batch,)).module()
        x = clip(name, batch=3)
        assert_same(exported(x), model(x))


class PreActivation(nn.Module):
    """Normalises before the convolution of the same number."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(3)
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(functional.relu(self.bn1(x)))


def test_networks_of_others_are_not_folded_by_their_names() -> None:
    model = models.tsn(PreActivation(), features=4, num_classes=3)
    model.backbone.network.bn1.running_mean.fill_(0.3)  # pyright: ignore
    x = torch.rand(1, 3, 2, 8, 8)
    assert torch.equal(optimize_for_inference(model)(x), model.eval()(x))
