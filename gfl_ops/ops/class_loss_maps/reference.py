"""The class loss of all levels by its kind, their positions one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._class_targets import side_by_side
from ..atss_assign.reference import OUTSIDE
from ..multilevel_sigmoid_focal_loss.reference import multilevel_sigmoid_focal_loss
from ..multilevel_soft_bce_loss.reference import multilevel_soft_bce_loss
from ..multilevel_varifocal_loss.reference import multilevel_varifocal_loss
from ..quality_focal_loss.reference import quality_focal_loss


def class_loss_maps(
    preds: Sequence[Tensor],
    labels: Tensor,
    scores: Tensor | None,
    kind: str,
    gamma: float,
    alpha: float,
    reduction: str,
    avg_factor: float | Tensor | None,
) -> Tensor:
    if scores is None:
        return multilevel_sigmoid_focal_loss(preds, labels, gamma, alpha, reduction, avg_factor)
    if kind == "soft_bce":
        return multilevel_soft_bce_loss(preds, labels, scores, reduction, avg_factor)
    if kind == "varifocal":
        return multilevel_varifocal_loss(
            preds, labels, scores, alpha, gamma, reduction=reduction, avg_factor=avg_factor
        )
    logits = side_by_side(preds).flatten(0, 1)  # (B * A, C)
    target = labels.flatten(), scores.flatten()
    kept = (target[0] != OUTSIDE).to(logits.dtype)
    if reduction == "mean" and avg_factor is None:  # over the elements, where the loss of rows has one over rows
        return quality_focal_loss(logits, target, kept, gamma, "sum") / max(logits.numel(), 1)
    return quality_focal_loss(logits, target, kept, gamma, reduction, avg_factor)
