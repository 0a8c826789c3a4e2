"""Facts about the projects whose weights are converted, and the settings that their checkpoints store.

Pixels, and clips of the published tests:

* MMAction2: RGB, mean and standard deviation of ImageNet; `SegmentFrames`, `DenseClips`. X3D: those of
  PySlowFast, whose weights they are. UniFormerV2: as below
* MViT of any project: RGB in [0, 1], mean 0.45, standard deviation 0.225
* PySlowFast, PyTorchVideo: RGB in [0, 1], mean 0.45, standard deviation 0.225; `PySlowFastClips`
* MIT TSM: RGB in [0, 1], mean and standard deviation of ImageNet; `SegmentFrames`
* VideoMAE, also of transformers: RGB in [0, 1], mean and standard deviation of ImageNet; `DenseClips`, on
  Something-Something `SegmentFrames`
* Video Swin, also its image networks: RGB in [0, 1], mean and standard deviation of ImageNet; `DenseClips`,
  on Something-Something `SegmentClips`
* UniFormerV2, also from CLIP's image network: RGB in [0, 1], mean 0.45, standard deviation 0.225;
  `SegmentClips`
* Hiera: RGB in [0, 1], mean and standard deviation of ImageNet; `DenseClips`
* V-JEPA, also of transformers: RGB in [0, 1], mean and standard deviation of ImageNet; `SegmentWindows`
* torchvision, image networks: RGB in [0, 1], mean and standard deviation of ImageNet; none
* torchvision, video networks of 18 layers: RGB in [0, 1], statistics of Kinetics-400; `TimedClips` at 15 fps
* torchvision, Video Swin: RGB in [0, 1], mean and standard deviation of ImageNet; `TimedClips` at 15 fps

`Normalize` is in units of 0 to 255, so values for pixels in [0, 1] are multiplied by 255. Sources: the
configurations of MMAction2 1.2 and PySlowFast, `ops/transforms.py` and `main.py` of MIT TSM, and
`transforms/_presets.py` of torchvision.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mmaction_lite.data.sources.resample import Interpolation
from mmaction_lite.data.views.normalize import PYSLOWFAST, Normalize
from mmaction_lite.errors import UserError
from mmaction_lite.weights.converters import (
    hiera,
    huggingface_videomae,
    huggingface_vjepa,
    mit_tsm,
    mmaction2,
    mvit,
    pyslowfast,
    pytorchvideo,
    swin,
    torchvision,
    uniformerv2,
    videomae,
    vjepa,
    x3d,
)
from mmaction_lite.weights.converters.folders import CONFIG, PREPROCESSOR
from mmaction_lite.weights.converters.preprocessor import (
    activation,
    clip_len,
    crop_size,
    heads,
    interpolation,
    norm_eps,
    other_filter,
    short_side,
    statistics,
)

IMAGENET = Normalize()
TORCHVISION_VIDEO = Normalize(
    mean=(110.2008, 100.63983, 95.99475), std=(58.14765, 56.46975, 55.332195)
)  # 255 · (0.43216, 0.394666, 0.37645) and 255 · (0.22803, 0.22145, 0.216989)
NORMALIZE = {
    mmaction2.NAME: IMAGENET,
    pyslowfast.NAME: PYSLOWFAST,
    pytorchvideo.NAME: PYSLOWFAST,
    mit_tsm.NAME: IMAGENET,
    torchvision.NAME: IMAGENET,
    swin.NAME: IMAGENET,
    videomae.NAME: IMAGENET,
    hiera.NAME: IMAGENET,
    uniformerv2.NAME: PYSLOWFAST,
    vjepa.NAME: IMAGENET,
    huggingface_vjepa.NAME: IMAGENET,
    huggingface_videomae.NAME: IMAGENET,  # of the published folders; the default of the processor is 0.5
}
# MMAction2 decodes RGB, and both settings reverse it.
_BGR = re.compile(r"\bto_bgr=True|\bActionDataPreprocessor\b(?s:.*)\bto_rgb=True")
LONGEST_SETTINGS = 1 << 20  # characters of a stored configuration that are read


@dataclass(frozen=True, kw_only=True)
class StoredSettings:
    """Settings of the training that a checkpoint of another project stores as text; None where it has none.

    Args:
        normalize: normalization of pixels in the order red, green, blue.
        is_bgr: whether the network reads pixels in the order blue, green, red; see `channels`.
        backbone: class of the backbone in MMAction2, such as "ResNetTSM".
        alpha: frames of the fast pathway of SlowFast per frame of the slow one.
        shift_div: see `models.tsm`.
        pool_stride: stride of the pooling after the stem of I3D in frames.
        non_local: mode of non-local blocks.
        short_side: short side in pixels to which whole frames are resized.
        crop: (height, width) of the central crop in pixels.
        clip_len: frames of a clip.
        interpolation: filter that resizes frames.
        other_filter: filter that resizes frames and that views do not have.
        style: "caffe" if the first convolution of a bottleneck has the stride, else "pytorch".
        heads: attention heads of the blocks of a transformer.
        mlp_activation: name of the activation in the MLPs of a transformer.
        eps: epsilon of the normalizations of a transformer.
    """

    normalize: Normalize | None = None
    is_bgr: bool = False
    backbone: str | None = None
    alpha: int | None = None
    shift_div: int | None = None
    pool_stride: int | None = None
    non_local: str | None = None
    style: str | None = None
    short_side: int | None = None
    crop: tuple[int, int] | None = None
    clip_len: int | None = None
    interpolation: Interpolation | None = None
    other_filter: str | None = None
    heads: int | None = None
    mlp_activation: str | None = None
    eps: float | None = None


def stored_settings(checkpoint: Mapping[str, Any]) -> StoredSettings:
    """Return the settings of the training that a checkpoint stores.

    MMAction2 stores its configuration in `meta` as Python text, PySlowFast in `cfg` as YAML. Folders of the
    Hugging Face Hub have the statistics of the pixels and the sizes of clips in files beside the weights.

    Args:
        checkpoint: content of the file, as `read_checkpoint` returns it.
    """
    preprocessor, config = checkpoint.get(PREPROCESSOR), checkpoint.get(CONFIG)
    if isinstance(preprocessor, Mapping) or isinstance(config, Mapping):
        return _of_folder(preprocessor or {}, config or {})
    meta = checkpoint.get("meta")
    texts = [meta.get("cfg"), meta.get("config")] if isinstance(meta, Mapping) else []
    python = next((text[:LONGEST_SETTINGS] for text in texts if isinstance(text, str)), None)
    if python is not None:
        is_bgr = bool(_BGR.search(python))
        mean, std = (_python_list(python, name)[:: -1 if is_bgr else 1] for name in ("mean", "std"))
        return StoredSettings(
            normalize=_normalize(mean, std, scale=1.0),
            is_bgr=is_bgr,
            backbone=_word(python, r"\btype='(ResNet\w*|C2D|MobileNetV2\w*)'"),
            alpha=_number(python, r"\bspeed_ratio=(\d{1,4})\b"),
            shift_div=_number(python, r"\bshift_div=(\d{1,4})\b"),
            pool_stride=_number(python, r"\bpool1_stride_t=(\d{1,4})\b"),
            non_local=_word(python, r"\bmode='(dot_product|embedded_gaussian|gaussian)'"),
            style=_word(python, r"\bstyle='(caffe|pytorch)'"),
        )
    yaml = checkpoint.get("cfg")
    if isinstance(yaml, str):
        yaml = yaml[:LONGEST_SETTINGS]
        is_slowfast = re.search(r"^ {2}ARCH: slowfast\s*$", yaml, re.MULTILINE)
        return StoredSettings(
            normalize=_normalize(_yaml_list(yaml, "MEAN"), _yaml_list(yaml, "STD"), scale=255.0),
            is_bgr=bool(re.search(r"^ {2}REVERSE_INPUT_CHANNEL: true\s*$", yaml, re.MULTILINE)),
            alpha=_number(yaml, r"\n {2}ALPHA: (\d{1,4})\s") if is_slowfast else None,
        )
    return StoredSettings()


def _of_folder(preprocessor: Mapping[str, Any], config: Mapping[str, Any]) -> StoredSettings:
    """Return the settings of a folder of the Hugging Face Hub."""
    return StoredSettings(
        normalize=_normalize(*statistics(preprocessor), scale=255.0),
        short_side=short_side(preprocessor),
        crop=crop_size(preprocessor),
        clip_len=clip_len(config),
        interpolation=interpolation(preprocessor),
        other_filter=other_filter(preprocessor),
        heads=heads(config),
        mlp_activation=activation(config),
        eps=norm_eps(config),
    )


def source_normalize(source: str, keys: Collection[str], settings: StoredSettings) -> Normalize | None:
    """Return the normalization that weights expect: the stored one, otherwise that of the project.

    Args:
        source: name of the project.
        keys: names of the weights.
        settings: settings that the checkpoint stores.

    Returns:
        The normalization; None for weights of unknown origin.
    """
    if settings.normalize is not None:
        return settings.normalize
    if mvit.matches(keys):
        # MMAction2 tests MViTv2-S on Something-Something v2 with the statistics of ImageNet: those are in the
        # catalogue, and in files that store their configuration.
        return PYSLOWFAST
    if source == torchvision.NAME and "stem.0.weight" in keys:
        return TORCHVISION_VIDEO
    if source == mmaction2.NAME and (x3d.MMACTION2_STEM in keys or uniformerv2.is_mmaction2(keys)):
        return PYSLOWFAST
    return NORMALIZE.get(source)


def _python_list(text: str, name: str) -> list[str]:
    found = re.search(rf"\b{name}=\[([\d., \n]{{1,200}})\]", text)
    return [part.strip() for part in found[1].split(",") if part.strip()] if found else []


def _yaml_list(text: str, name: str) -> list[str]:
    found = re.search(rf"\n {{2}}{name}:((?:\n {{2}}- [\d.]{{1,20}}){{3}})\n", text)
    return re.findall(r"- ([\d.]+)", found[1]) if found else []


def _normalize(mean: list[str], std: list[str], scale: float) -> Normalize | None:
    if len(mean) != 3 or len(std) != 3:
        return None
    try:
        means, stds = ([round(float(value) * scale, 6) for value in values] for values in (mean, std))
        return Normalize(mean=(means[0], means[1], means[2]), std=(stds[0], stds[1], stds[2]))
    except (ValueError, UserError):
        return None


def _word(text: str, pattern: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


def _number(text: str, pattern: str) -> int | None:
    found = _word(text, pattern)
    return int(found) if found else None
