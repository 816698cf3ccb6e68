"""Sigmoid focal loss of all levels, their positions one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._class_targets import side_by_side
from ..atss_assign.reference import OUTSIDE
from ..sigmoid_focal_loss.reference import sigmoid_focal_loss


def multilevel_sigmoid_focal_loss(
    preds: Sequence[Tensor],
    labels: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    logits = side_by_side(preds).flatten(0, 1)  # (B * A, C)
    label = labels.flatten()
    return sigmoid_focal_loss(logits, label, (label != OUTSIDE).to(logits.dtype), gamma, alpha, reduction, avg_factor)
