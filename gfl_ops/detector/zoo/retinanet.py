"""RetinaNet (Lin et al. 2017): nine anchors a cell."""

from __future__ import annotations

from dataclasses import replace

from ..config import ModelConfig
from ..heads import Anchors, ClassOnly, Deltas, Divisors, HeadConfig, Joint, MaxIoU, Names, SharedTowers
from ..necks import FPNConfig
from ..settings import PostprocessConfig
from .shared import R50, R101, on_coco, with_quality_focal

HEAD = HeadConfig(
    towers=SharedTowers(norm_groups=None),
    priors=Anchors(),
    assigner=MaxIoU(),
    boxes=Deltas(stds=(1.0, 1.0, 1.0, 1.0), loss="l1", weight=1.0),
    quality=ClassOnly(),
    divisors=Divisors(boxes="classes", over_ranks=False),
    level_scales=False,
    names=Names("retina_cls", "retina_reg"),
)
JOINT_HEAD = replace(HEAD, quality=Joint(weighs_boxes=False))

_R50 = ModelConfig(
    "retinanet_r50_fpn",
    R50,
    HEAD,
    neck=FPNConfig(extra_source="input"),
    postprocess=PostprocessConfig(iou_thr=0.5),
    published=on_coco(36.5, "retinanet_r50_fpn_1x_coco"),
)

MODELS = (
    _R50,
    replace(_R50, name="retinanet_r101_fpn", backbone=R101, published=on_coco(38.5, "retinanet_r101_fpn_1x_coco")),
    with_quality_focal(_R50, JOINT_HEAD),
)
