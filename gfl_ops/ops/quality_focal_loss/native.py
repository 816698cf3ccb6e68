"""Quality focal loss on the compiled core."""

from __future__ import annotations

from torch import Tensor

from ... import _arguments
from ..._op import LossOp
from .._class_loss import CLASS_LOSS, QUALITY_FOCAL, QUALITY_FOCAL_PROBABILITY

_LOSS = LossOp("quality_focal_loss", CLASS_LOSS)


def quality_focal_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None,
    beta: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    activated: bool,
    loss_weight: float,
    loss: LossOp = _LOSS,
) -> Tensor:
    if isinstance(target, Tensor):
        dense, labels, scores = _arguments.target(target, pred), None, None
    else:
        dense, labels, scores = None, _arguments.labels(target[0]), _arguments.vector(target[1], pred)
    weight = _arguments.vector(weight, pred)
    formula = QUALITY_FOCAL_PROBABILITY if activated else QUALITY_FOCAL
    reduced = _arguments.reduction(reduction, avg_factor, pred, pred.shape[0], loss_weight)
    return loss((pred,), *reduced, dense, labels, scores, weight, None, formula, float(beta), 0.0)
