"""The integral of edge distributions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from . import native, reference

_OP = "integral"


def integral(
    pred: Tensor, bin_values: Tensor | None = None, num_bins: int = 17, *, channel_dim: int | None = None
) -> Tensor:
    r"""The expectations of the distributions of the left, top, right and bottom edge: :math:`\sum_k p_k v_k`.

    p is the softmax over the bins of an edge, v are the values of the bins.

    Args:
        pred: (..., 4 * bins) logits, all bins of an edge together; or maps (N, 4 * bins, H, W), contiguous or
            channels-last.
        bin_values: (bins,) values of the bins, 0, 1, 2, ... by default. Their number is the number of bins.
        num_bins: the number of bins if bin_values are not given, 2 to 256.
        channel_dim: the dimension of the 4 * bins channels: 1 for maps, -1 otherwise. By default it is 1 if pred is 4-D
            and its dimension 1 has that size, and -1 otherwise.

    Returns:
        (..., 4) or (N, 4, H, W), of pred's dtype.

    Example:
        >>> integral(torch.zeros(2, 68)).tolist()
        [[8.0, 8.0, 8.0, 8.0], [8.0, 8.0, 8.0, 8.0]]
    """
    _checked(pred, bin_values, num_bins, channel_dim, None)
    if bin_values is not None:
        num_bins = bin_values.numel()
    if channel_dim is None:
        channel_dim = 1 if pred.ndim == 4 and pred.shape[1] == 4 * num_bins else -1
    kernels = kernels_for(_OP, pred, native)
    if kernels is not None:
        return kernels.integral(pred, bin_values, num_bins, channel_dim)
    return reference.integral(pred, bin_values, num_bins, channel_dim=channel_dim)


def _check_arguments(pred: Any, bin_values: Any, num_bins: Any, channel_dim: Any, avg_factor: None) -> None:
    _check.floating(_OP, "pred", pred)
    if bin_values is not None:
        _check.tensor(_OP, "bin_values", bin_values)
        num_bins = bin_values.numel()
    _check.num_bins(_OP, "num_bins" if bin_values is None else "the length of bin_values", num_bins)
    if bin_values is not None:
        _check.companion(_OP, "bin_values", bin_values, pred, (num_bins,), "(bins,)")
    if channel_dim is None:
        channel_dim = 1 if pred.ndim == 4 and pred.shape[1] == 4 * num_bins else -1
    if channel_dim not in (1, -1) or (channel_dim == 1 and pred.ndim not in (2, 4)):
        raise ValueError(f"{_OP}: channel_dim must be -1, or 1 for (N, C, H, W), got {channel_dim} for {pred.ndim}-D")
    if pred.ndim == 0 or pred.shape[channel_dim] != 4 * num_bins:
        raise ValueError(
            f"{_OP}: pred must be (..., 4 * bins) or (N, 4 * bins, H, W) with 4 * bins = {4 * num_bins}, "
            f"got {tuple(pred.shape)}"
        )


_checked = _check.Checked(_check_arguments)
