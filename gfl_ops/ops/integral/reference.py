"""The expectation of each side's softmax distribution over its bins: sum_i p_i * value_i."""

from __future__ import annotations

import torch
from torch import Tensor

from .._formulas import softmax, widen


def integral(
    pred: Tensor, bin_values: Tensor | None = None, num_bins: int = 17, *, channel_dim: int | None = None
) -> Tensor:
    if bin_values is not None:
        num_bins = bin_values.numel()
    if channel_dim is None:
        channel_dim = 1 if pred.dim() == 4 and pred.shape[1] == 4 * num_bins else -1
    channel_dim %= pred.dim()
    # Channel c = side * num_bins + bin; the bins move to the end, the four sides stay where the channels were.
    x = widen(pred).unflatten(channel_dim, (4, num_bins)).movedim(channel_dim + 1, -1)
    values = torch.arange(num_bins, device=x.device) if bin_values is None else bin_values
    return (softmax(x) * values.to(x.dtype)).sum(-1).to(pred.dtype)
