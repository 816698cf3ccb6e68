"""Varifocal loss of all levels, their positions one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._class_targets import side_by_side
from ..atss_assign.reference import OUTSIDE
from ..varifocal_loss.reference import varifocal_loss


def multilevel_varifocal_loss(
    preds: Sequence[Tensor],
    labels: Tensor,
    scores: Tensor,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    detach_factor: bool = False,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    logits = side_by_side(preds).flatten(0, 1)  # (B * A, C)
    target = labels.flatten(), scores.flatten()
    kept = (target[0] != OUTSIDE).to(logits.dtype)
    return varifocal_loss(logits, target, kept, alpha, gamma, iou_weighted, detach_factor, reduction, avg_factor)
