"""Forms of networks whose weights have the same names and shapes, and that compute something else.

The shapes of a state dict do not show temporal strides, the ratio of SlowFast's pathways, the channels that
TSM shifts, the similarity in non-local blocks, or the heads of a transformer. They follow from the project,
from wrappers in its names, or from the settings that a checkpoint stores. Where none of these is known, the
form is not checked.
"""

from collections.abc import Collection, Iterator, Mapping

from torch import nn

from mmaction_lite.models.convolution import Conv2d
from mmaction_lite.models.non_local import NonLocal
from mmaction_lite.models.resnet import MaxPool, ResNet
from mmaction_lite.models.slowfast import SlowFast
from mmaction_lite.models.vit import Attention
from mmaction_lite.weights.converters import (
    huggingface_videomae,
    huggingface_vjepa,
    mit_tsm,
    mmaction2,
    pyslowfast,
    pytorchvideo,
    swin,
    torchvision,
)
from mmaction_lite.weights.converters.channels import input_weights
from mmaction_lite.weights.converters.sources import StoredSettings

# Frames of the fast pathway per frame of the slow one, by the kernel size of the lateral connections, in the
# published SlowFast networks on ResNet-50: 4x16 and 8x8.
ALPHA_OF_KERNEL = {5: 8, 7: 4}
# Normalizations whose epsilon is this or smaller differ by rounding: transformers has 1e-12 in VideoMAE.
LARGEST_EPS = 1e-5
IMAGE_BACKBONES = {"ResNet": "TSN", "ResNetTSM": "TSM", "C2D": "C2D"}


def differences(
    source: str,
    names: Mapping[str, str | None],
    model: nn.Module,
    settings: StoredSettings,
) -> Iterator[str]:
    """Yield the differences between the network that weights are for and the network that receives them.

    Args:
        source: name of the project.
        names: name in the checkpoint to name in the network, None for entries that are left out.
        model: the network, in the form that `adapt` of the project's table gave it.
        settings: settings that the checkpoint stores.

    Yields:
        "the weights are …, and the network is …; how to fix it".
    """
    backbone = getattr(model, "backbone", None)
    yield from _shift_differences(source, names, model, settings)
    if isinstance(backbone, SlowFast):
        yield from _slowfast_differences(source, backbone, settings)
    elif isinstance(backbone, ResNet):
        yield from _resnet_differences(source, backbone, settings)
    modes = {module.mode for module in model.modules() if isinstance(module, NonLocal)}
    mode = "embedded_gaussian" if source == mit_tsm.NAME else settings.non_local
    if modes and mode and modes != {mode}:
        yield (
            f"the non-local blocks of the weights have mode {mode}, and those of the network "
            f"{', '.join(sorted(modes))}; use a recipe with Build(..., non_local={mode!r})"
        )
    if settings.style == "caffe" and isinstance(backbone, ResNet):
        yield (
            "the first convolution of each block has the stride (style 'caffe'), in the network the second "
            "one; use weights of style 'pytorch'"
        )
    if source in (huggingface_videomae.NAME, huggingface_vjepa.NAME):
        yield from _transformer_differences(model, settings)
    if settings.is_bgr and not input_weights(model):
        yield "the weights expect channels in the order BGR, and videos are read as RGB; use weights for RGB"


def _shifting(model: nn.Module) -> dict[str, int]:
    """Return the number of shifted channels of each convolution that shifts, by the name of its weight."""
    return {
        f"{name}.weight": module.share
        for name, module in model.named_modules()
        if isinstance(module, Conv2d) and module.share
    }


def _shift_differences(
    source: str, names: Mapping[str, str | None], model: nn.Module, settings: StoredSettings
) -> Iterator[str]:
    if source not in (mmaction2.NAME, mit_tsm.NAME):
        return
    is_online = source == mit_tsm.NAME and mit_tsm.is_online(names)
    theirs = {name for key, name in names.items() if name and ".net." in key}
    theirs = mit_tsm.ONLINE_SHIFTS if is_online else theirs
    ours = _shifting(model)
    if ours and not theirs:
        yield (
            "the weights are of a network without temporal shift, and the network shifts in time; use a TSN "
            "recipe"
        )
    elif ours.keys() != theirs:
        yield (
            f"{len(theirs)} convolutions of the weights shift in time, and {len(ours)} of the network; use "
            "the recipe of the same network"
        )
    elif is_online != any(isinstance(module, Conv2d) and module.causal for module in model.modules()):
        online, both = "an online TSM, which shifts to later frames only", "a TSM, which shifts both ways"
        found, wanted = (online, both) if is_online else (both, online)
        yield (
            f"the weights are of {found}, and the network is {wanted}; use a recipe of "
            f"{'tsm_online_mobilenetv2' if is_online else 'tsm'}, or train from the weights"
        )
    elif settings.shift_div:
        weights = model.state_dict()
        wrong = [
            name for name, share in ours.items() if share != weights[name].shape[1] // settings.shift_div
        ]
        if wrong:
            yield (
                f"the weights are for shift_div={settings.shift_div}, and the network has another; use a "
                f"recipe with Build(..., shift_div={settings.shift_div})"
            )


def _slowfast_differences(source: str, backbone: SlowFast, settings: StoredSettings) -> Iterator[str]:
    kernel = backbone.lateral[0].get_parameter("conv.weight").shape[2]
    is_r50 = len([*backbone.slow.get_submodule("layer3").children()]) == 6
    alpha = settings.alpha
    if alpha is None and is_r50 and (source != mmaction2.NAME or kernel == 7):
        # The first SlowFast 8x8 of MMAction2 had kernels of 5, as 4x16 has.
        alpha = ALPHA_OF_KERNEL.get(kernel)
    if alpha is not None and alpha != backbone.alpha:
        yield (
            f"the weights are of a SlowFast with {alpha} frames of the fast pathway per slow frame "
            f"({32 // alpha} slow frames of 32), and the network has {backbone.alpha}; use the recipe of "
            f"slowfast {32 // alpha}x{alpha * 2}"
        )


def _resnet_differences(source: str, backbone: ResNet, settings: StoredSettings) -> Iterator[str]:
    conv, pool = backbone.conv1, backbone.maxpool
    stride = pool.stride_t if isinstance(pool, MaxPool) else 1
    if isinstance(conv, nn.Conv3d) and conv.kernel_size[0] == 5:  # I3D
        if source in (pyslowfast.NAME, pytorchvideo.NAME) and conv.stride[0] != 1:
            yield (
                "the weights are of an I3D whose stem has stride 1 in time, and the network has stride "
                f"{conv.stride[0]}; use a recipe of i3d_r50_heavy"
            )
        elif settings.pool_stride not in (None, stride):
            yield (
                f"the weights are of an I3D whose first pooling has stride {settings.pool_stride} in time, "
                f"and the network has stride {stride}; use a recipe of "
                f"{'i3d_r50' if settings.pool_stride == 2 else 'i3d_r50_heavy'}"
            )
    name = IMAGE_BACKBONES.get(settings.backbone or "")
    is_c2d = "halve_time" in dict(backbone.get_submodule("layer1").named_children())
    if name and is_c2d != (name == "C2D"):
        yield f"the weights are of {name}, and the network is another; use a recipe of {name}"


def _transformer_differences(model: nn.Module, settings: StoredSettings) -> Iterator[str]:
    ours = next((module.heads for module in model.modules() if isinstance(module, Attention)), None)
    if ours is not None and settings.heads not in (None, ours):
        yield (
            f"config.json names {settings.heads} attention heads, and the network has {ours}; use a recipe "
            f"with Build(..., heads={settings.heads})"
        )
    if settings.mlp_activation not in (None, "gelu"):
        yield (
            f"config.json names the activation {settings.mlp_activation!r}, and the network has 'gelu'; no "
            "builder of the package has another one"
        )
    if settings.eps is not None and settings.eps > LARGEST_EPS:
        yield (
            f"config.json names the epsilon {settings.eps:g} of normalizations, and the network has 1e-06; "
            "no builder of the package has another one"
        )


def is_for_images(source: str, names: Collection[str], model: nn.Module) -> bool:
    """Whether weights of an image network enter a video network, which computes nothing useful untrained.

    TSN on the same image network computes the average of the classes of its frames.
    """
    is_image = source == torchvision.NAME and torchvision.is_image(names)
    is_image |= source == swin.NAME and swin.PATCHES in names  # names of the video network have a prefix
    has_time = any(isinstance(module, nn.Conv3d) for module in model.modules())
    return is_image and (has_time or bool(_shifting(model)))
