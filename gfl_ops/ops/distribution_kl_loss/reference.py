"""Kullback-Leibler divergence of softened distributions: T^2 sum_k t_k log(t_k / s_k), the teacher t without gradient.

Localization distillation takes the mean over the bins in place of the sum (Zheng et al. 2022); D-FINE's decoupled
distillation focal loss takes the sum, weighted (Peng et al. 2024).
"""

from __future__ import annotations

from torch import Tensor

from ..._reduce import reduce_loss
from .._formulas import log_softmax, times, widen


def distribution_kl_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    bin_reduction: str = "sum",
) -> Tensor:
    x = widen(student)
    log_t = log_softmax(teacher.to(x.dtype) / temperature)
    log_s = log_softmax(x / temperature)
    terms = times(log_t.exp(), log_t - log_s)
    loss = temperature**2 * (terms.sum(-1) if bin_reduction == "sum" else terms.mean(-1))
    return reduce_loss(loss, weight, reduction, avg_factor)
