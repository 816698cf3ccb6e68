"""ATSS (Zhang et al. 2020), which GFL improves on, and what the paper's tables make of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..config import ModelConfig
from ..heads import Centerness, Deltas, HeadConfig, Names, SharedTowers, Towers
from .shared import R50, R101, on_coco


def atss_head(
    *,
    gamma: float = 2.0,
    alpha: float = 0.25,
    loss_weights: tuple[float, float, float] = (1.0, 2.0, 1.0),
    towers: Towers | None = None,
    **parts: Any,
) -> HeadConfig:
    """Weights are those of focal loss, GIoU and centerness."""
    return HeadConfig(
        towers=towers or SharedTowers(),
        boxes=Deltas(weight=loss_weights[1]),
        quality=Centerness(gamma, alpha, loss_weights[0], branch_weight=loss_weights[2]),
        names=Names("atss_cls", "atss_reg", "atss_centerness"),
        **parts,
    )


_R50 = ModelConfig("atss_r50_fpn", R50, atss_head(), published=on_coco(39.4, "atss_r50_fpn_1x_coco"))

MODELS = (
    _R50,
    replace(_R50, name="atss_r101_fpn", backbone=R101, published=on_coco(41.5, "atss_r101_fpn_1x_coco")),
)
