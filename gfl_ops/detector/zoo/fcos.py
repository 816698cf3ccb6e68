"""FCOS (Tian et al. 2019): as it was published first, and improved (mmdet's center-normbbox-centeronreg-giou)."""

from __future__ import annotations

from dataclasses import replace

from ..config import ModelConfig
from ..heads import Centerness, Distances, Divisors, FCOSRanges, HeadConfig, Joint, Points, SharedTowers
from ..necks import FPNConfig
from ..settings import InputConfig, PostprocessConfig, Recipe
from .shared import BYTES, CAFFE_R50, on_coco, with_quality_focal

_NECK = FPNConfig(relu_before_extra=True)
_RECIPE = Recipe(bias_rate=2.0, bias_decay=0.0, warmup_factor=1 / 3)

IMPROVED_HEAD = HeadConfig(
    towers=SharedTowers(bias=True),
    priors=Points(offset=0.5),
    assigner=FCOSRanges(),
    boxes=Distances(),
    quality=Centerness(),
    divisors=Divisors("batch", least_weight=1e-6),
)
PLAIN_HEAD = replace(
    IMPROVED_HEAD,
    towers=SharedTowers(),
    assigner=FCOSRanges(radius=None),
    boxes=Distances("exp", "log_iou"),
    quality=Centerness(branch_on="cls"),
)
JOINT_HEAD = replace(IMPROVED_HEAD, quality=Joint(), divisors=Divisors("batch"))

_PLAIN = ModelConfig(
    "fcos_r50-caffe_fpn_gn-head",
    CAFFE_R50,
    PLAIN_HEAD,
    neck=_NECK,
    input=InputConfig(mean=(102.9801, 115.9465, 122.7717), std=BYTES, channels="bgr"),
    postprocess=PostprocessConfig(iou_thr=0.5),
    recipe=replace(_RECIPE, warmup="constant", clip_norm=35.0),
    published=on_coco(36.6, "fcos_r50-caffe_fpn_gn-head_1x_coco"),
)
_IMPROVED = ModelConfig(
    "fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou",
    CAFFE_R50,
    IMPROVED_HEAD,
    neck=_NECK,
    input=InputConfig(mean=(103.53, 116.28, 123.675), std=BYTES, channels="bgr"),
    recipe=_RECIPE,
    published=on_coco(38.7, "fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco"),
)

MODELS = (_PLAIN, _IMPROVED, with_quality_focal(_IMPROVED, JOINT_HEAD))
ALIASES: dict[str, str] = {
    "fcos_r50_fpn": _IMPROVED.name,
    "fcos_r50_fpn_plain": _PLAIN.name,
    "fcos_r50_fpn+qfl": f"{_IMPROVED.name}+qfl",
}
