"""The statistics of edge distributions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from . import native, reference

_OP = "distribution_statistics"


def distribution_statistics(edge_logits: Tensor, topk: int = 4, *, channel_dim: int | None = None) -> Tensor:
    r"""The topk highest probabilities of each edge's distribution, and their mean.

    GFLv2's head predicts the quality of a box from them (https://arxiv.org/abs/2011.12885, section 3.2). p is the
    softmax over the bins of an edge. Bins are ranked by their logits; of equal ones the lower bin is first, and has the
    gradient of that rank.

    Args:
        edge_logits: (..., 4 * bins) logits, all bins of an edge together, 2 to 256 bins; or maps (N, 4 * bins, H, W),
            contiguous or channels-last.
        topk: how many probabilities, 1 to the number of bins.
        channel_dim: the dimension of the 4 * bins channels: 1 for maps, -1 otherwise. By default it is 1 if edge_logits
            is 4-D, and -1 otherwise.

    Returns:
        (..., 4 * (topk + 1)) or (N, 4 * (topk + 1), H, W), of edge_logits' dtype: for each edge its probabilities, the
        highest first, and then their mean.

    Example:
        >>> distribution_statistics(torch.zeros(1, 4 * 8), topk=2).tolist()
        [[0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125]]
    """
    _checked(edge_logits, topk, channel_dim, None)
    if channel_dim is None:
        channel_dim = 1 if edge_logits.ndim == 4 else -1
    kernels = kernels_for(_OP, edge_logits, native)
    if kernels is not None:
        return kernels.distribution_statistics(edge_logits, topk, channel_dim)
    return reference.distribution_statistics(edge_logits, topk, channel_dim=channel_dim)


def _check_arguments(edge_logits: Any, topk: Any, channel_dim: Any, avg_factor: None) -> None:
    _check.floating(_OP, "edge_logits", edge_logits)
    if channel_dim is None:
        channel_dim = 1 if edge_logits.ndim == 4 else -1
    if channel_dim not in (1, -1) or (channel_dim == 1 and edge_logits.ndim not in (2, 4)):
        raise ValueError(
            f"{_OP}: channel_dim must be -1, or 1 for (N, C, H, W), got {channel_dim} for {edge_logits.ndim}-D"
        )
    if edge_logits.ndim == 0 or edge_logits.shape[channel_dim] % 4:
        raise ValueError(
            f"{_OP}: edge_logits must be (..., 4 * bins) or (N, 4 * bins, H, W), got {tuple(edge_logits.shape)}"
        )
    bins = edge_logits.shape[channel_dim] // 4
    _check.num_bins(_OP, "bins (a quarter of the channels)", bins)
    _check.whole(_OP, "topk", topk, 1)
    if topk > bins:
        raise ValueError(f"{_OP}: topk must be 1 to the number of bins, {bins}, got {topk}")


_checked = _check.Checked(_check_arguments)
