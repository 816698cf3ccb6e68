"""The divergence of distributions on the compiled core."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ... import _arguments
from ..._op import LossOp, NativeLoss, RawLoss, Size


class DistributionKLLoss(NamedTuple):
    """gfl_distribution_kl_loss in csrc/gfl.h"""

    logits: Tensor
    mode: int
    scale: float
    divisor: Size
    avg_factor: Tensor | None
    teacher: Tensor
    weight: Tensor | None
    temperature: float


_RAW = RawLoss(
    "distribution_kl_loss",
    DistributionKLLoss,
    NativeLoss("distribution_kl_loss", DistributionKLLoss, "rows", "bins"),
)
_LOSS = LossOp("distribution_kl_loss", _RAW)


def distribution_kl_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    bin_reduction: str,
    loss_weight: float,
    loss: LossOp = _LOSS,
) -> Tensor:
    bins = student.shape[-1]
    shape = student.shape[:-1]
    factor = loss_weight * temperature**2 / (bins if bin_reduction == "mean" else 1)
    teacher = _arguments.target(teacher, student)
    if student.ndim != 2:
        student, teacher = student.reshape(-1, bins), teacher.reshape(-1, bins)
        weight = None if weight is None else weight.reshape(-1)
    reduced = _arguments.reduction(reduction, avg_factor, student, student.shape[0], factor)
    result = loss((student,), *reduced, teacher, _arguments.vector(weight, student), float(temperature))
    return result.reshape(shape) if reduction == "none" else result
