"""SSD512 (Liu et al. 2016)."""

from __future__ import annotations

from dataclasses import replace

from ..backbones import VGGConfig
from ..config import ModelConfig
from ..heads import Deltas, Divisors, HeadConfig, Joint, LevelPredictors, MaxIoU, Softmax, SSDAnchors
from ..necks import SSDExtraConfig
from ..settings import InputConfig, PostprocessConfig, Recipe
from .shared import BYTES, on_coco, with_quality_focal

HEAD = HeadConfig(
    towers=LevelPredictors(),
    priors=SSDAnchors(),
    assigner=MaxIoU(negative=0.5, all_best=False),
    boxes=Deltas(loss="l1", beta=1.0, weight=1.0),
    quality=Softmax(),
    divisors=Divisors(boxes="classes", over_ranks=False),
    strides=(8, 16, 32, 64, 128, 256, 512),
    level_scales=False,
)
JOINT_HEAD = replace(HEAD, quality=Joint(weighs_boxes=False))

_SSD = ModelConfig(
    "ssd512",
    VGGConfig(),
    HEAD,
    neck=SSDExtraConfig(),
    input=InputConfig(fixed_size=(512, 512), divisor=1, std=BYTES),
    postprocess=PostprocessConfig(score_thr=0.02, iou_thr=0.45, max_per_img=200),
    recipe=Recipe(
        epochs=24,
        milestones=(16, 22),
        learning_rate=2e-3,
        batch_size=64,
        weight_decay=5e-4,
        repeat=5,
        expand=True,
        overlap_crop=True,
        distort=True,
    ),
    published=on_coco(29.5, "ssd512_coco"),
)

MODELS = (_SSD, with_quality_focal(_SSD, JOINT_HEAD))
