"""Worker for torchvision's R(2+1)D-18 in a plain training loop."""

from plain import phases
from protocol import declare_torchvision, serve

declare_torchvision()

import torchvision  # noqa: E402

NO_VIDEO = "its package has no training code"


def build(options):
    model = {"r2plus1d_18_16": torchvision.models.video.r2plus1d_18}[options["setting"]](num_classes=400)
    return phases(options, model, lambda clip: clip, no_video=NO_VIDEO)


serve(f"torchvision {torchvision.__version__}", build)
