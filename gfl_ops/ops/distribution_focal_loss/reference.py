"""Distribution Focal Loss: cross entropy on the two bins around the target, weighted by nearness.

-(weight_left * log p_left + weight_right * log p_right) (Li et al. 2020, equation 6).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..._reduce import reduce_loss
from .._formulas import log_softmax, times, widen


def distribution_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    first_bin: float = 0.0,
    bin_values: Tensor | None = None,
    left_weight: Tensor | None = None,
    right_weight: Tensor | None = None,
) -> Tensor:
    log_p = log_softmax(widen(pred))
    last = pred.shape[-1] - 1
    y = target.to(log_p.dtype)
    if bin_values is None:
        y = y - first_bin
        values = torch.arange(last + 1, dtype=log_p.dtype, device=log_p.device)
    else:
        values = bin_values.to(log_p.dtype).contiguous()

    # left is the last bin at or below y; the last bin of all has none to its right.
    left = (torch.searchsorted(values, y.contiguous(), right=True) - 1).clamp(0, last)
    right = (left + 1).clamp(max=last)
    at_last = left == last
    if left_weight is None or right_weight is None:
        # take() and not values[left]: a 0-d index would be read by the host.
        value_left, value_right = values.take(left), values.take(right)
        nearness = (y - value_left) / torch.where(at_last, 1.0, value_right - value_left)
        left_weight, right_weight = 1 - nearness, nearness
    left_weight = _nan_unless((y >= values[0]) & (y <= values[-1]), left_weight.to(log_p.dtype))
    right_weight = torch.where(at_last, 0.0, right_weight.to(log_p.dtype))

    log_p_left = log_p.gather(-1, left[..., None])[..., 0]
    log_p_right = log_p.gather(-1, right[..., None])[..., 0]
    loss = -times(left_weight, log_p_left) - times(right_weight, log_p_right)
    return reduce_loss(loss, weight, reduction, avg_factor)


def _nan_unless(inside: Tensor, x: Tensor) -> Tensor:
    return torch.where(inside, x, torch.nan)
