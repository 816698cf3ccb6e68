"""Varifocal loss over levels on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._class_loss import varifocal
from .._multilevel_class_loss import MULTILEVEL_CLASS_LOSS, MultilevelLossOp, run_loss

_LOSS = MultilevelLossOp("multilevel_varifocal_loss", MULTILEVEL_CLASS_LOSS)


def multilevel_varifocal_loss(
    preds: Sequence[Tensor],
    labels: Tensor,
    scores: Tensor,
    alpha: float,
    gamma: float,
    iou_weighted: bool,
    detach_factor: bool,
    reduction: str,
    avg_factor: float | Tensor | None,
    loss: MultilevelLossOp = _LOSS,
) -> Tensor:
    formula = varifocal(iou_weighted, detach_factor)
    return run_loss(loss, preds, labels, scores, reduction, avg_factor, formula, gamma, alpha)
