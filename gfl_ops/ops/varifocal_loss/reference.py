"""Varifocal loss: t BCE(p, t) of positives, alpha |p - t|^gamma BCE(p, t) of the others (Zhang et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._reduce import reduce_loss
from .._class_targets import beside_elements, one_hot, score_at_label
from .._formulas import abs_power, bce_with_logits, sigmoid_pair, widen


def varifocal_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    detach_factor: bool = False,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    x = widen(pred)
    if isinstance(target, Tensor):
        t = target.to(x.dtype)
        positive = t > 0
    else:
        t = score_at_label(*target, pred.shape[1]).to(x.dtype)
        positive = one_hot(target[0], pred.shape[1])
    p, not_p = sigmoid_pair(x)
    modulation = alpha * abs_power((1 - t) * p - t * not_p, gamma)
    if detach_factor:
        modulation = modulation.detach()
    factor = torch.where(positive, t if iou_weighted else 1.0, modulation)
    bce = bce_with_logits(x, t)
    finite = bce.clamp(max=torch.finfo(bce.dtype).max)  # a factor of 0 leaves nothing of an infinite loss
    loss = factor * torch.where(factor == 0, finite, bce)
    return reduce_loss(loss, beside_elements(weight, loss), reduction, avg_factor)
