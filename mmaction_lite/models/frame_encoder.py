"""Video networks on an image model of timm, which runs on every frame: DINOv3, SigLIP, ConvNeXt, ….

* `frame_encoder`: the tokens of all frames with a code of the frame, attention pooling and a classifier.
  Attention pooling does not depend on the order of its tokens, so the code is what tells frames apart.
* `tsn_timm`: TSN, which averages the logits of the frames.

Both need timm (`pip install mmaction-lite[timm]`), which installs torchvision. The builders never download
weights: pass a file of timm's weights to the training (`--init-from`).
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError, nearest
from mmaction_lite.models.attentive_pool import MapPool
from mmaction_lite.models.recognizer import Recognizer, fold_time
from mmaction_lite.models.tsn import EachFrame
from mmaction_lite.models.vit import initialize
from mmaction_lite.settings import PositiveInt, Probability

FrameTokens = Literal["patches", "pooled"]
HEAD_SCALE = 0.001  # factor of the initial weights of the classifier


class ImageConfig(NamedTuple):
    """What an image model of timm expects of its input, from timm's own configuration.

    Args:
        mean: of the pixels, in units of 0 to 255.
        std: of the pixels, in units of 0 to 255.
        size: (height, width) of the images in pixels.
        interpolation: method of resizing, such as "bicubic".
        license: licence of the weights; empty if timm does not state it.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int]
    interpolation: str
    license: str


class TimmFrames(nn.Module):
    """The tokens of an image model of timm.

    Args:
        image_model: the model, without classifier.
        tokens: "patches": the tokens of the patches, or the positions of the last feature map, without class
            and register tokens. "pooled": the pooled feature of the image, one token.
    """

    def __init__(self, image_model: nn.Module, tokens: FrameTokens) -> None:
        super().__init__()
        self.image_model = image_model
        self.kind: FrameTokens = tokens
        if tokens == "patches":  # the pooling of the image model is not used
            for name in ("head", "attn_pool", "conv_head", "norm_head"):
                module = getattr(image_model, name, None)
                if isinstance(module, nn.Module):
                    module.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to tokens (N, n, D).

        Raises:
            UserError: the image model does not accept images of this size.
        """
        model: Any = self.image_model
        self.grid(x.shape[2], x.shape[3])
        maps = model.forward_features(x)
        if self.kind == "pooled":
            return model.forward_head(maps, pre_logits=True).unsqueeze(1)
        if maps.ndim == 3:
            tokens = maps[:, getattr(model, "num_prefix_tokens", 0) :]
        elif getattr(model, "output_fmt", "NCHW") == "NHWC":
            tokens = maps.flatten(1, 2)
        else:
            tokens = maps.flatten(2).transpose(1, 2)
        norm = getattr(model, "fc_norm", None)  # of models that normalize after their own pooling
        return norm(tokens) if isinstance(norm, nn.Module) else tokens

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the number of tokens along height and width for images of this size.

        Raises:
            UserError: the image model does not accept images of this size.
        """
        model: Any = self.image_model
        embedding = getattr(model, "patch_embed", None)
        size = getattr(embedding, "img_size", None)
        if getattr(embedding, "strict_img_size", False) and size and (height, width) != tuple(size):
            raise UserError(
                f"frames have {height}x{width} pixels; expected {size[0]}x{size[1]}, for which the image "
                "model has positions. Change the crop size, or pass image_size to the builder"
            )
        if self.kind == "pooled":
            return 1, 1
        patch = getattr(embedding, "patch_size", None)
        if patch is None or not hasattr(model, "blocks"):  # feature maps, or tokens that are merged
            step = (model.feature_info[-1]["reduction"],) * 2
        else:
            step = (patch, patch) if isinstance(patch, int) else patch
            if height % step[0] or width % step[1]:
                raise UserError(
                    f"frames have {height}x{width} pixels; expected multiples of {step[0]}x{step[1]}, the "
                    "size of a patch. Change the crop size"
                )
        return -(-height // step[0]), -(-width // step[1])

    def layers(self) -> list[nn.Module]:
        """Return the parts of the image model from the stem to its normalization."""
        children = dict(self.image_model.named_children())
        name = next((name for name in ("blocks", "stages") if name in children), None)
        if name is None:
            return [self.image_model]
        names = list(children)
        before, after = names[: names.index(name)], names[names.index(name) + 1 :]
        parts = [nn.ModuleList(children[name] for name in group) for group in (before, after)]
        return [parts[0], *children[name].children(), parts[1]]


class FrameEncoder(nn.Module):
    """An image model on every frame, a code of the frame, attention pooling and a classifier.

    Source of the head: the attentive probe of OneVision-Encoder (eval_encoder/attentive_probe.py).

    Args:
        frames: maps images (N, 3, H, W) to tokens (N, n, width).
        width: channels of the tokens.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
    """

    def __init__(self, frames: TimmFrames, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = frames
        self.pooler = MapPool(width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        initialize(self.head)
        with torch.no_grad():
            self.head.weight.mul_(HEAD_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Map clips (B, 3, T, H, W) to logits (B, num_classes)."""
        return self.head(self.dropout(self.features(x))).squeeze(1)

    def features(self, x: Tensor) -> Tensor:
        """Map clips (B, 3, T, H, W) to the input of the classifier (B, 1, width)."""
        return self.norm(self.pooler(self.tokens(x))).unsqueeze(1)

    after_tokens = ("pooler", "norm")

    def tokens(self, x: Tensor) -> Tensor:
        """Map clips (B, 3, T, H, W) to tokens (B, T·h·w, width), with the code of their frame.

        Raises:
            UserError: see `TimmFrames.forward`.
        """
        tokens = self.encoder(fold_time(x)).unflatten(0, (x.shape[0], x.shape[2]))
        return (tokens + frame_code(x.shape[2], tokens)[:, None]).flatten(1, 2)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the number of tokens along time, height and width for clips of this size.

        Raises:
            UserError: see `TimmFrames.grid`.
        """
        return frames, *self.encoder.grid(height, width)

    def layers(self) -> list[nn.Module]:
        """Return the layers of the image model, the pooling and the head; see `models.network`."""
        return [*self.encoder.layers(), nn.ModuleList([self.pooler, self.norm]), self.head]


def frame_code(frames: int, like: Tensor) -> Tensor:
    """Return the sine and cosine code of the frame numbers, (frames, width), with device and dtype of `like`.

    Channels i and i + width / 2 are sine and cosine of number / 10000^(2i / width).
    """
    half = -(-like.shape[-1] // 2)
    frequencies = 10000 ** (-torch.arange(half, device=like.device, dtype=torch.float32) / half)
    angles = torch.arange(frames, device=like.device, dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, : like.shape[-1]].to(like.dtype)


def image_config(image_model: str) -> ImageConfig:
    """Return what an image model of timm expects of its input.

    Raises:
        UserError: timm is not installed, or has no such model.
    """
    timm = _timm()
    _check_name(timm, image_model)
    config = timm.get_pretrained_cfg(image_model) or timm.create_model(image_model).pretrained_cfg
    config = config if isinstance(config, dict) else config.to_dict()
    mean, std = (tuple(round(255 * value, 4) for value in config[name]) for name in ("mean", "std"))
    return ImageConfig(
        mean=mean,
        std=std,
        size=tuple(config["input_size"][1:]),
        interpolation=str(config.get("interpolation", "")),
        license=str(config.get("license") or ""),
    )


def frame_encoder(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    image_model: str = "vit_small_patch16_dinov3",
    image_size: PositiveInt | None = None,
    tokens: FrameTokens = "patches",
) -> FrameEncoder:
    """Build an image model of timm with a frame code, attention pooling and a classifier.

    Args:
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        image_model: name in timm.
        image_size: side of the frames in pixels, for image models with positions for one size; None: the
            size of timm's configuration.
        tokens: see `TimmFrames`.

    Raises:
        UserError: timm is not installed, has no such model, or the model has no fixed size to change.
    """
    model = _image_model(image_model, image_size)
    width = model.num_features if tokens == "patches" else model.head_hidden_size
    return FrameEncoder(TimmFrames(model, tokens), width, num_classes, dropout)


def tsn_timm(
    num_classes: int = 400,
    dropout: Probability = 0.4,
    image_model: str = "vit_small_patch16_dinov3",
    image_size: PositiveInt | None = None,
) -> Recognizer:
    """Build TSN on an image model of timm, with its own pooling; arguments as in `frame_encoder`."""
    model = _image_model(image_model, image_size)
    return Recognizer(EachFrame(model), model.head_hidden_size, num_classes, dropout, per_frame=True)


def _image_model(name: str, image_size: int | None) -> Any:
    timm = _timm()
    _check_name(timm, name)
    size = {} if image_size is None else {"img_size": image_size}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **size)
    except TypeError as error:
        if size and "img_size" in str(error):
            raise UserError(
                f"image_size is {image_size}; expected None, because {name} accepts frames of any size"
            ) from None
        raise


def _timm() -> Any:
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "timm is not installed; expected timm for networks on its image models. Install it with "
            "`pip install mmaction-lite[timm]`, which also installs torchvision"
        ) from None
    return timm


def _check_name(timm: Any, name: str) -> None:
    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        raise UserError(f"timm has no image model {name!r}; {near}")
