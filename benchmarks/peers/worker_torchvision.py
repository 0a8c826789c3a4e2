"""Worker for torchvision's R(2+1)D-18, MViTv2-S and Video Swin-T in a plain training loop."""

from plain import phases
from protocol import declare_torchvision, serve

declare_torchvision()

import torchvision  # noqa: E402
from torchvision.models import video  # noqa: E402

NO_VIDEO = "its package has no training code"


def build(options):
    builders = {"r2plus1d_18_16": video.r2plus1d_18, "mvit_v2_s": video.mvit_v2_s, "swin3d_t": video.swin3d_t}
    model = builders[options["setting"]](num_classes=400)
    for module in model.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0
    optimizer = "SGD" if options["setting"] == "r2plus1d_18_16" else "AdamW"
    return phases(options, model, lambda clip: clip, optimizer=optimizer, no_video=NO_VIDEO)


serve(f"torchvision {torchvision.__version__}", build)
