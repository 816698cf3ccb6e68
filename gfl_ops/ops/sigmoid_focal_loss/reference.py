"""Sigmoid focal loss: alpha_t * (1 - p_t)^gamma * BCE(p, t), element by element (Lin et al. 2017, equation 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._reduce import reduce_loss
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
    t = (target if target.is_floating_point() else _one_hot(target, pred.shape[1])).to(x.dtype)
    p, not_p = sigmoid_pair(x)
    miss = (1 - t) * p + t * not_p  # 1 - p_t
    alpha_t = alpha * t + (1 - alpha) * (1 - t)
    loss = abs_power(miss, gamma) * times(alpha_t, bce_with_logits(x, t))
    return reduce_loss(loss, None if weight is None else _per_row_or_element(weight, loss), reduction, avg_factor)


def _one_hot(label: Tensor, num_classes: int) -> Tensor:
    """(N, C) of bool; a label outside [0, C) is background."""
    return label[:, None] == torch.arange(num_classes, device=label.device)


def _per_row_or_element(weight: Tensor, loss: Tensor) -> Tensor:
    """(N,), (N, 1), (N, C) or (N * C,) as something that broadcasts with (N, C)."""
    return weight.reshape(-1, 1) if weight.numel() == loss.shape[0] else weight.reshape(loss.shape)
