"""Generalized Focal Loss (Li et al. 2020)."""

from __future__ import annotations

from typing import Any

from ..config import ModelConfig
from ..heads import Distribution, HeadConfig, Joint, Names, SharedTowers, Towers
from .shared import R50, R101, TWICE, X101, multi_scale, on_coco


def gfl_head(
    *,
    reg_max: int = 16,
    beta: float = 2.0,
    loss_weights: tuple[float, float, float] = (1.0, 2.0, 0.25),
    towers: Towers | None = None,
    **parts: Any,
) -> HeadConfig:
    """Weights are those of quality focal loss, GIoU and distribution focal loss."""
    return HeadConfig(
        towers=towers or SharedTowers(),
        boxes=Distribution(reg_max, weight=loss_weights[1], dfl_weight=loss_weights[2]),
        quality=Joint(beta, loss_weights[0]),
        names=Names("gfl_cls", "gfl_reg", "gfl_branch"),
        **parts,
    )


_HEAD = gfl_head()
_MULTI_SCALE = multi_scale(480, 800)

MODELS = (
    ModelConfig("gfl_r50_fpn", R50, _HEAD, published=on_coco(40.2, "gfl_r50_fpn_1x_coco")),
    ModelConfig(
        "gfl_r50_fpn_ms2x",
        R50,
        _HEAD,
        input=_MULTI_SCALE,
        recipe=TWICE,
        published=on_coco(42.9, "gfl_r50_fpn_ms-2x_coco"),
    ),
    ModelConfig(
        "gfl_r101_fpn",
        R101,
        _HEAD,
        input=_MULTI_SCALE,
        recipe=TWICE,
        published=on_coco(44.7, "gfl_r101_fpn_ms-2x_coco"),
    ),
    ModelConfig(
        "gfl_x101-32x4d",
        X101,
        _HEAD,
        input=_MULTI_SCALE,
        recipe=TWICE,
        published=on_coco(45.9, "gfl_x101-32x4d_fpn_ms-2x_coco"),
    ),
)
