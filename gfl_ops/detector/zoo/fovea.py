"""FoveaBox (Kong et al. 2020), and its form with a deformable convolution before the classes."""

from __future__ import annotations

from dataclasses import replace

from ..config import ModelConfig
from ..heads import AlignedTowers, ClassOnly, Divisors, Fovea, HeadConfig, Joint, LogDistances, Points, SharedTowers
from ..necks import FPNConfig
from ..settings import PostprocessConfig, Recipe
from .shared import R50, TWICE, on_coco, with_quality_focal

HEAD = HeadConfig(
    towers=SharedTowers(norm_groups=None),
    priors=Points(offset=0.5),
    assigner=Fovea(),
    boxes=LogDistances(),
    quality=ClassOnly(gamma=1.5, alpha=0.4),
    divisors=Divisors("batch_and_images", "positives", over_ranks=False),
    level_scales=False,
)
ALIGNED_HEAD = replace(HEAD, towers=AlignedTowers())
JOINT_HEAD = replace(HEAD, quality=Joint(weighs_boxes=False))

_R50 = ModelConfig(
    "fovea_r50_fpn",
    R50,
    HEAD,
    neck=FPNConfig(extra_source="input"),
    postprocess=PostprocessConfig(iou_thr=0.5, min_size=-1.0, border=1.0),
    recipe=Recipe(),
    published=on_coco(36.5, "fovea_r50_fpn_4xb4-1x_coco"),
)

MODELS = (
    _R50,
    replace(
        _R50,
        name="fovea_r50_fpn_gn-head-align",
        head=ALIGNED_HEAD,
        recipe=replace(TWICE, clip_norm=35.0),
        published=on_coco(37.9, "fovea_r50_fpn_gn-head-align_4xb4-2x_coco"),
    ),
    with_quality_focal(_R50, JOINT_HEAD),
)
