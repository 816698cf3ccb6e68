"""The IoU family on the compiled core."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ... import _arguments
from ..._op import LossOp, NativeLoss, RawLoss, Size

# gfl_iou_kind, gfl_iou_transform, gfl_eps_rule and gfl_alpha_rule in csrc/gfl.h
KINDS = {"iou": 0, "giou": 1, "diou": 2, "ciou": 3}
TRANSFORMS = {"linear": 0, "square": 1, "log": 2}
EPS_RULES = {"floor": 0, "add": 1}
ALPHA_RULES = {"half": 0, "always": 1}


class IouLoss(NamedTuple):
    """gfl_iou_loss in csrc/gfl.h"""

    pred: Tensor
    mode: int
    scale: float
    divisor: Size
    avg_factor: Tensor | None
    target: Tensor
    weight: Tensor | None
    iou_kind: int
    transform: int
    eps_rule: int
    alpha_rule: int
    eps: float


_LOSS = LossOp("iou_loss", RawLoss("iou_loss", IouLoss, NativeLoss("iou_loss", IouLoss, "rows")))


def iou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    kind: str,
    eps: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    transform: str,
    eps_rule: str,
    alpha_rule: str,
    loss_weight: float,
    loss: LossOp = _LOSS,
) -> Tensor:
    reduced = _arguments.reduction(reduction, avg_factor, pred, pred.shape[0], loss_weight)
    target, weight = _arguments.target(target, pred), _arguments.vector(weight, pred)
    options = KINDS[kind], TRANSFORMS[transform], EPS_RULES[eps_rule], ALPHA_RULES[alpha_rule], float(eps)
    return loss((pred,), *reduced, target, weight, *options)
