"""Networks that map clips (B, C, T, H, W) to logits (B, num_classes).

All builders but `tsn`, `tsn_timm` and `frame_encoder` take `num_classes`, `dropout` (probability before the
classifier) and `width` (channels of the stem, or of the tokens). `network` describes the interface of the
networks.
"""

from mmaction_lite.models.c2d import c2d_r50
from mmaction_lite.models.fast.inference import optimize_for_inference
from mmaction_lite.models.frame_encoder import frame_encoder, tsn_timm
from mmaction_lite.models.hiera import hiera_base, hiera_base_plus, hiera_large
from mmaction_lite.models.i3d import i3d_r50, i3d_r50_heavy
from mmaction_lite.models.mvit import mvit_v1_base, mvit_v2_base, mvit_v2_small
from mmaction_lite.models.probe import probe_attentive, probe_linear, probe_map
from mmaction_lite.models.r2plus1d import r2plus1d_r18, r2plus1d_r34, r2plus1d_r50
from mmaction_lite.models.r3d import mc3_r18, r3d_r18
from mmaction_lite.models.slowfast import slowfast_r50_4x16, slowfast_r50_8x8, slowfast_r101_8x8
from mmaction_lite.models.slowonly import slowonly_r50, slowonly_r101
from mmaction_lite.models.swin3d import swin3d_base, swin3d_small, swin3d_tiny
from mmaction_lite.models.tsm import (
    tsm_mobilenetv2,
    tsm_online_mobilenetv2,
    tsm_online_r10,
    tsm_online_r50,
    tsm_r10,
    tsm_r18,
    tsm_r34,
    tsm_r50,
    tsm_r101,
)
from mmaction_lite.models.tsn import tsn, tsn_r10, tsn_r18, tsn_r34, tsn_r50, tsn_r101
from mmaction_lite.models.uniformerv2 import uniformerv2_base, uniformerv2_large
from mmaction_lite.models.videomae import videomae_base, videomae_large, videomae_small
from mmaction_lite.models.videomae_pretrain import (
    videomae_pretrain_base,
    videomae_pretrain_large,
    videomae_pretrain_small,
)
from mmaction_lite.models.vjepa2 import vjepa2_giant, vjepa2_huge, vjepa2_large
from mmaction_lite.models.vjepa21 import vjepa21_base, vjepa21_giant, vjepa21_gigantic, vjepa21_large
from mmaction_lite.models.x3d import x3d_l, x3d_m, x3d_s, x3d_xs

PRETRAINING = (videomae_pretrain_base, videomae_pretrain_large, videomae_pretrain_small)
"""Builders of networks whose output is an error instead of logits; see the task `Reconstruction`."""

__all__ = [
    "c2d_r50",
    "frame_encoder",
    "hiera_base",
    "hiera_base_plus",
    "hiera_large",
    "i3d_r50",
    "i3d_r50_heavy",
    "mc3_r18",
    "mvit_v1_base",
    "mvit_v2_base",
    "mvit_v2_small",
    "optimize_for_inference",
    "probe_attentive",
    "probe_linear",
    "probe_map",
    "r2plus1d_r18",
    "r2plus1d_r34",
    "r2plus1d_r50",
    "r3d_r18",
    "slowfast_r50_4x16",
    "slowfast_r50_8x8",
    "slowfast_r101_8x8",
    "slowonly_r50",
    "slowonly_r101",
    "swin3d_base",
    "swin3d_small",
    "swin3d_tiny",
    "tsm_mobilenetv2",
    "tsm_online_mobilenetv2",
    "tsm_online_r10",
    "tsm_online_r50",
    "tsm_r10",
    "tsm_r18",
    "tsm_r34",
    "tsm_r50",
    "tsm_r101",
    "tsn",
    "tsn_r10",
    "tsn_r18",
    "tsn_r34",
    "tsn_r50",
    "tsn_r101",
    "tsn_timm",
    "uniformerv2_base",
    "uniformerv2_large",
    "videomae_base",
    "videomae_large",
    "videomae_small",
    "vjepa2_giant",
    "vjepa2_huge",
    "vjepa2_large",
    "vjepa21_base",
    "vjepa21_giant",
    "vjepa21_gigantic",
    "vjepa21_large",
    "x3d_l",
    "x3d_m",
    "x3d_s",
    "x3d_xs",
]
