"""Distribution focal loss on the compiled core."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ... import _arguments
from ..._op import LossOp, NativeLoss, RawLoss, Size


class DistributionFocalLoss(NamedTuple):
    """gfl_distribution_focal_loss in csrc/gfl.h"""

    logits: Tensor
    mode: int
    scale: float
    divisor: Size
    avg_factor: Tensor | None
    target: Tensor
    weight: Tensor | None
    bin_values: Tensor | None
    left_weight: Tensor | None
    right_weight: Tensor | None
    first_bin: float


_RAW = RawLoss(
    "distribution_focal_loss",
    DistributionFocalLoss,
    NativeLoss("distribution_focal_loss", DistributionFocalLoss, "rows", "bins"),
)
_LOSS = LossOp("distribution_focal_loss", _RAW)


def distribution_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    first_bin: float,
    bin_values: Tensor | None,
    left_weight: Tensor | None,
    right_weight: Tensor | None,
    loss_weight: float,
    loss: LossOp = _LOSS,
) -> Tensor:
    reduced = _arguments.reduction(reduction, avg_factor, pred, target.numel(), loss_weight)
    vectors: list[Tensor | None]
    if pred.ndim == 2:
        rows = pred
        vectors = [target, weight, bin_values, left_weight, right_weight]
    else:
        rows = pred.reshape(target.numel(), pred.shape[-1])
        vectors = [_flat(target), _flat(weight), bin_values, _flat(left_weight), _flat(right_weight)]
    result = loss((rows,), *reduced, *[_arguments.vector(x, pred) for x in vectors], float(first_bin))
    return result.reshape(target.shape) if reduction == "none" else result


def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.reshape(-1)
