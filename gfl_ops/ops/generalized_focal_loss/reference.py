"""Generalized Focal Loss, of which FL, QFL and DFL are special cases (Li et al. 2020, equation 8).

|y - (y_l p_l + y_r p_r)|^beta * -((y_r - y) log p_l + (y - y_l) log p_r)
"""

from __future__ import annotations

from torch import Tensor

from ..._reduce import reduce_loss
from .._formulas import abs_power, clamped_log, times, widen


def generalized_focal_loss(
    p_left: Tensor,
    p_right: Tensor,
    y: float | Tensor,
    y_left: float | Tensor,
    y_right: float | Tensor,
    beta: float = 2.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    p_left, p_right = widen(p_left), widen(p_right)
    y, y_left, y_right = (_like(p_left, v) for v in (y, y_left, y_right))
    miss = y - (y_left * p_left + y_right * p_right)
    cross_entropy = -times(y_right - y, clamped_log(p_left)) - times(y - y_left, clamped_log(p_right))
    return reduce_loss(abs_power(miss, beta) * cross_entropy, weight, reduction, avg_factor)


def _like(p: Tensor, value: float | Tensor) -> Tensor:
    return value.to(p.dtype) if isinstance(value, Tensor) else p.new_full((), value)
