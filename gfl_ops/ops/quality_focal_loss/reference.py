"""Quality Focal Loss: |t - p|^beta * BCE(p, t), summed over the classes (Li et al. 2020, equation 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._reduce import reduce_loss
from .._class_targets import score_at_label
from .._formulas import abs_power, bce_of_probability, bce_with_logits, sigmoid_pair, widen


def quality_focal_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    beta: float = 2.0,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    activated: bool = False,
) -> Tensor:
    x = widen(pred)
    t = (target if isinstance(target, Tensor) else score_at_label(*target, pred.shape[1])).to(x.dtype)
    loss = _of_probability(x, t, beta) if activated else _of_logit(x, t, beta)
    return reduce_loss(loss.sum(1), weight, reduction, avg_factor)


def _of_logit(x: Tensor, t: Tensor, beta: float) -> Tensor:
    p, not_p = sigmoid_pair(x)
    distance = (1 - t) * p - t * not_p  # p - t, exact relative to the result for t = 0 and 1
    return abs_power(distance, beta) * bce_with_logits(x, t)


def _of_probability(p: Tensor, t: Tensor, beta: float) -> Tensor:
    p = p * torch.where((p >= 0) & (p <= 1), 1.0, torch.nan)  # a factor, so that the gradient is NaN as well
    return abs_power(p - t, beta) * bce_of_probability(p, t)
