"""Varifocal loss on the compiled core."""

from __future__ import annotations

from torch import Tensor

from ... import _arguments
from ..._op import LossOp
from .._class_loss import CLASS_LOSS, varifocal
from .._class_targets import of_target

_LOSS = LossOp("varifocal_loss", CLASS_LOSS)


def varifocal_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None,
    alpha: float,
    gamma: float,
    iou_weighted: bool,
    detach_factor: bool,
    reduction: str,
    avg_factor: float | Tensor | None,
    loss_weight: float,
    loss: LossOp = _LOSS,
) -> Tensor:
    weight = _arguments.vector(weight, pred)
    reduced = _arguments.reduction(
        reduction, avg_factor, pred, pred.numel(), loss_weight, unreduced=_arguments.ELEMENTS
    )
    formula = varifocal(iou_weighted, detach_factor)
    return loss((pred,), *reduced, *of_target(target, pred), weight, None, formula, float(gamma), float(alpha))
