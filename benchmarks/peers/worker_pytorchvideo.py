"""Worker for PyTorchVideo's networks in a plain training loop, because the project has no training code.

Its transforms fail to import with current versions of torchvision, so it does not read clips from files.
"""

import importlib.metadata

import torch
from plain import phases
from protocol import declare_torchvision, serve

declare_torchvision()

from pytorchvideo.models import create_resnet, create_slowfast  # noqa: E402
from pytorchvideo.models.hub import i3d_r50, r2plus1d_r50, slow_r50, x3d_m, x3d_s  # noqa: E402


def slowfast(alpha, fusion, slow_frames):
    return create_slowfast(
        model_num_class=400,
        slowfast_fusion_conv_kernel_size=(fusion, 1, 1),
        slowfast_fusion_conv_stride=(alpha, 1, 1),
        head_pool_kernel_sizes=((slow_frames, 7, 7), (32, 7, 7)),
        dropout_rate=0.5,
    )


NETWORKS = {
    "slowonly_4x16": lambda: create_resnet(
        stem_conv_kernel_size=(1, 7, 7),
        model_num_class=400,
        head_pool_kernel_size=(4, 7, 7),
        dropout_rate=0.5,
    ),
    "slowonly_8x8": lambda: slow_r50(pretrained=False),
    "slowfast_4x16": lambda: slowfast(8, 5, 4),
    "slowfast_8x8": lambda: slowfast(4, 7, 8),
    "i3d_8x8": lambda: i3d_r50(pretrained=False),
    "r2plus1d_50_16x4": lambda: r2plus1d_r50(pretrained=False),
    "x3d_m": lambda: x3d_m(pretrained=False),
    "x3d_s": lambda: x3d_s(pretrained=False),
}


NO_VIDEO = "its transforms fail to import with current versions of torchvision"


def build(options):
    def inputs(clip):
        if not options["setting"].startswith("slowfast"):
            return clip
        slow_frames = {"slowfast_4x16": 4, "slowfast_8x8": 8}[options["setting"]]
        picked = torch.linspace(0, clip.shape[2] - 1, slow_frames).long().to(clip.device)
        return [clip[:, :, picked], clip]

    model = NETWORKS[options["setting"]]()
    # The heads of R(2+1)D and X3D return probabilities, the others return logits.
    model.blocks[-1].activation = None
    return phases(options, model, inputs, no_video=NO_VIDEO)


serve(f"PyTorchVideo {importlib.metadata.version('pytorchvideo')}", build)
