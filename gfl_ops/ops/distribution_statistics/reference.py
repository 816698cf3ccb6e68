"""What GFLv2 reads the quality of a box from: the top-k probabilities of each edge's distribution, and their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from .._formulas import softmax, widen


def distribution_statistics(edge_logits: Tensor, topk: int = 4, *, channel_dim: int | None = None) -> Tensor:
    if channel_dim is None:
        channel_dim = 1 if edge_logits.dim() == 4 else -1
    channel_dim %= edge_logits.dim()
    bins = edge_logits.shape[channel_dim] // 4
    # Channel c = side * bins + bin; the bins move to the end, the four sides stay where the channels were.
    x = widen(edge_logits).unflatten(channel_dim, (4, bins)).movedim(channel_dim + 1, -1)
    largest = softmax(x).gather(-1, _order(x.detach(), topk))
    statistics = torch.cat([largest, largest.mean(-1, keepdim=True)], -1)
    return statistics.movedim(-1, channel_dim + 1).flatten(channel_dim, channel_dim + 1).to(edge_logits.dtype)


def _order(x: Tensor, topk: int) -> Tensor:
    # ONNX has no stable sort. Which of equal bins is first matters to gradients alone.
    if torch.compiler.is_exporting():
        return x.topk(topk, dim=-1).indices
    # A stable sort has the lower index first where logits tie; topk promises no order.
    return x.sort(stable=True, dim=-1, descending=True).indices[..., :topk]
