"""Sigmoid focal loss: alpha_t * (1 - p_t)^gamma * BCE(p, t), element by element (Lin et al. 2017, equation 5)."""

from __future__ import annotations

from torch import Tensor

from ..._reduce import reduce_loss
from .._class_targets import beside_elements, one_hot
from .._formulas import abs_power, bce_with_logits, sigmoid_pair, times, widen


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    x = widen(pred)
    t = (target if target.is_floating_point() else one_hot(target, pred.shape[1])).to(x.dtype)
    p, not_p = sigmoid_pair(x)
    miss = (1 - t) * p + t * not_p  # 1 - p_t
    alpha_t = alpha * t + (1 - alpha) * (1 - t)
    loss = abs_power(miss, gamma) * times(alpha_t, bce_with_logits(x, t))
    return reduce_loss(loss, beside_elements(weight, loss), reduction, avg_factor)
