"""GFLv2 (Li et al. 2021): the score's quality is read off the edge distributions."""

from __future__ import annotations

from dataclasses import replace

from ..config import ModelConfig
from ..heads import JointFromDistribution
from .gfl import gfl_head
from .shared import R50, R101, TWICE, multi_scale, on_coco

_HEAD = replace(gfl_head(), quality=JointFromDistribution())
_MULTI_SCALE = multi_scale(480, 960)
_AUTHORS = "the authors' GFocalV2"

MODELS = (
    ModelConfig("gflv2_r50_fpn", R50, _HEAD, published=on_coco(41.0, "gfocal_r50_fpn_1x", _AUTHORS)),
    ModelConfig(
        "gflv2_r50_fpn_ms2x",
        R50,
        _HEAD,
        input=_MULTI_SCALE,
        recipe=TWICE,
        published=on_coco(43.9, "gfocal_r50_fpn_ms2x", _AUTHORS),
    ),
    ModelConfig(
        "gflv2_r101_fpn",
        R101,
        _HEAD,
        input=_MULTI_SCALE,
        recipe=TWICE,
        published=on_coco(45.8, "gfocal_r101_fpn_ms2x", _AUTHORS),
    ),
)
