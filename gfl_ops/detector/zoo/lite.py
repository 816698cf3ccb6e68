"""Small models for CPUs, to be trained from scratch: a recipe that aims at ten minutes on two cores."""

from __future__ import annotations

from dataclasses import replace

from ..backbones import ResNetConfig, VGGConfig
from ..config import ModelConfig
from ..heads import AlignedTowers, HeadConfig, SharedTowers, SSDAnchors
from ..necks import FPNConfig, SSDExtraConfig
from ..settings import InputConfig, PostprocessConfig, Recipe
from . import fcos, fovea, retinanet, ssd
from .atss import atss_head
from .gfl import gfl_head
from .gflv2 import MODELS as GFLV2

# Nothing is frozen, and everything has a part of the usual width.
_R18 = ResNetConfig(18, base_channels=32, frozen_stages=-1, norm_eval=False)
_TOWERS = SharedTowers(feat_channels=64, stacked_convs=2, norm_groups=16)
_NECK = FPNConfig(out_channels=64)
_INPUT = InputConfig(short_side=256, long_side=416)
_RECIPE = Recipe(
    iterations=1800,
    schedule="cosine",
    optimizer="adamw",
    learning_rate=2e-3,
    batch_size=8,
    weight_decay=0.05,
    warmup_iterations=100,
    clip_norm=10.0,
)


def _lite(family: str, head: HeadConfig, **changes: object) -> ModelConfig:
    row = ModelConfig(f"{family}_r18_fpn_lite", _R18, head, neck=_NECK, input=_INPUT, recipe=_RECIPE)
    return replace(row, **changes)  # type: ignore[arg-type]


_FOVEA = PostprocessConfig(iou_thr=0.5, min_size=-1.0, border=1.0)
_RETINA = PostprocessConfig(iou_thr=0.5)
_SSD = ModelConfig(
    "ssd_vgg_lite",
    VGGConfig(base_channels=16),
    replace(ssd.HEAD, priors=SSDAnchors((10, 26, 66, 108, 148, 189, 230, 271))),
    neck=SSDExtraConfig((128, 64, 64, 64, 64), last_kernel=3),
    input=InputConfig(fixed_size=(256, 256), divisor=1),
    postprocess=PostprocessConfig(score_thr=0.02, iou_thr=0.45, max_per_img=200),
    recipe=_RECIPE,
)

MODELS = (
    _lite("gfl", gfl_head(towers=_TOWERS)),
    _lite("gflv2", replace(GFLV2[0].head, towers=_TOWERS)),
    _lite("atss", atss_head(towers=_TOWERS)),
    _lite(
        "fcos",
        replace(fcos.IMPROVED_HEAD, towers=replace(_TOWERS, bias=True)),
        neck=replace(_NECK, relu_before_extra=True),
    ),
    _lite("fcos_plain", replace(fcos.PLAIN_HEAD, towers=_TOWERS)),
    _lite("retinanet", replace(retinanet.HEAD, towers=_TOWERS), postprocess=_RETINA),
    _lite("fovea", replace(fovea.HEAD, towers=_TOWERS), postprocess=_FOVEA),
    _lite(
        "fovea_align",
        replace(fovea.ALIGNED_HEAD, towers=AlignedTowers(64, 2, 16)),
        postprocess=_FOVEA,
    ),
    _SSD,
)
