"""Sigmoid focal loss on the compiled core."""

from __future__ import annotations

from torch import Tensor

from ... import _arguments
from ..._op import LossOp
from .._class_loss import CLASS_LOSS, SIGMOID_FOCAL

_LOSS = LossOp("sigmoid_focal_loss", CLASS_LOSS)


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    gamma: float,
    alpha: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    loss_weight: float,
    loss: LossOp = _LOSS,
) -> Tensor:
    if target.is_floating_point():
        dense, labels = _arguments.target(target, pred), None
    else:
        dense, labels = None, _arguments.labels(target)
    weight = _arguments.vector(weight, pred)
    reduced = _arguments.reduction(
        reduction, avg_factor, pred, pred.numel(), loss_weight, unreduced=_arguments.ELEMENTS
    )
    return loss((pred,), *reduced, dense, labels, None, weight, None, SIGMOID_FOCAL, float(gamma), float(alpha))
