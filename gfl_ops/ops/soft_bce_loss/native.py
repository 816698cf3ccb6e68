"""Binary cross entropy with soft targets on the compiled core."""

from __future__ import annotations

from torch import Tensor

from ... import _arguments
from ..._op import LossOp
from .._class_loss import CLASS_LOSS, SOFT_CROSS_ENTROPY
from .._class_targets import of_target

_LOSS = LossOp("soft_bce_loss", CLASS_LOSS)


def soft_bce_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None,
    class_weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    loss_weight: float,
    loss: LossOp = _LOSS,
) -> Tensor:
    weights = _arguments.vector(weight, pred), _arguments.vector(class_weight, pred)
    reduced = _arguments.reduction(
        reduction, avg_factor, pred, pred.numel(), loss_weight, unreduced=_arguments.ELEMENTS
    )
    return loss((pred,), *reduced, *of_target(target, pred), *weights, SOFT_CROSS_ENTROPY, 0.0, 0.0)
