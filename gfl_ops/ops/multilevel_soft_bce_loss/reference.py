"""Binary cross entropy with soft targets of all levels, their positions one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._class_targets import side_by_side
from ..atss_assign.reference import OUTSIDE
from ..soft_bce_loss.reference import soft_bce_loss


def multilevel_soft_bce_loss(
    preds: Sequence[Tensor],
    labels: Tensor,
    scores: Tensor,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    logits = side_by_side(preds).flatten(0, 1)  # (B * A, C)
    target = labels.flatten(), scores.flatten()
    kept = (target[0] != OUTSIDE).to(logits.dtype)
    return soft_bce_loss(logits, target, kept, reduction=reduction, avg_factor=avg_factor)
