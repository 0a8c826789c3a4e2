"""Worker for VideoMAE and V-JEPA 2 of Hugging Face transformers, with random weights, in a plain loop."""

import transformers
from plain import phases
from protocol import serve
from torch import nn
from transformers import (
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
)


class Logits(nn.Module):
    """Maps (B, T, C, H, W) to logits; the state dict is that of the network."""

    def __init__(self, network, argument):
        super().__init__()
        self.network = network
        self.argument = argument

    def forward(self, clip):
        return self.network(**{self.argument: clip}).logits

    def state_dict(self):
        return self.network.state_dict()


def videomae(width, depth):
    config = VideoMAEConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        num_labels=400,
    )
    return Logits(VideoMAEForVideoClassification(config), "pixel_values")


def vjepa2(depth):
    config = VJEPA2Config(num_hidden_layers=depth, frames_per_clip=16, num_labels=400)
    return Logits(VJEPA2ForVideoClassification(config), "pixel_values_videos")


NO_VIDEO = "its package has no training code for video files"


def build(options):
    model = {
        "videomae_small": lambda: videomae(384, 12),
        "videomae_base_4": lambda: videomae(768, 4),
        "vjepa2_large_4": lambda: vjepa2(4),
    }[options["setting"]]()
    return phases(options, model, lambda clip: clip.transpose(1, 2), optimizer="AdamW", no_video=NO_VIDEO)


serve(f"transformers {transformers.__version__}", build)
