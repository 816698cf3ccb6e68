"""Distribution Focal Loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import _check, _reduce
from ..._dispatch import kernels_for
from . import native, reference

_OP = "distribution_focal_loss"


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
    _loss_weight: float = 1.0,
) -> Tensor:
    r"""Cross entropy with the two bins next to the target, weighted by how near they are (DFL).

    With the target y, l = floor(y) and r = l + 1, the loss is :math:`-(r - y) \log p_l - (y - l) \log p_r`
    (https://arxiv.org/abs/2006.04388, equation 6). If y is the last bin, only that bin counts. If y is outside the bins
    or NaN, the loss of its row is NaN, so clamp targets first, as detection heads do.

    Args:
        pred: (..., bins) logits, 2 to 256 bins.
        target: (...), in units of bins.
        weight: (...), multiplies the rows.
        reduction: ``"none"`` gives (...), ``"mean"`` divides by the number of targets, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.
        first_bin: the value of the first bin; PP-YOLOE's head for small objects starts at -2.
        bin_values: (bins,) increasing values of the bins, if they are not 0, 1, 2, ... (D-FINE).
        left_weight: (...), together with right_weight: weights of the two bins, in place of the nearness.
        right_weight: (...). Ignored where the target is the last bin.

    Returns:
        float32 (float64 for float64 pred): a scalar, or (...).

    Example:
        >>> pred = torch.randn(512, 17, requires_grad=True)
        >>> distribution_focal_loss(pred, torch.rand(512) * 15.9).backward()
    """
    _checked(pred, target, weight, first_bin, bin_values, left_weight, right_weight, reduction, avg_factor)
    options = (first_bin, bin_values, left_weight, right_weight)
    kernels = kernels_for(_OP, pred, native)
    if kernels is not None:
        return kernels.distribution_focal_loss(pred, target, weight, reduction, avg_factor, *options, _loss_weight)
    loss = reference.distribution_focal_loss(
        pred,
        target,
        weight,
        reduction,
        avg_factor,
        first_bin=first_bin,
        bin_values=bin_values,
        left_weight=left_weight,
        right_weight=right_weight,
    )
    return _reduce.weighted(loss, _loss_weight)


def _check_arguments(
    pred: Any,
    target: Any,
    weight: Any,
    first_bin: Any,
    bin_values: Any,
    left_weight: Any,
    right_weight: Any,
    reduction: Any,
    avg_factor: Any,
) -> None:
    _check.floating(_OP, "pred", pred)
    if pred.ndim < 1:
        raise ValueError(f"{_OP}: pred must be (..., bins), got {tuple(pred.shape)}")
    bins = pred.shape[-1]
    _check.num_bins(_OP, "bins (the last dimension of pred)", bins)
    rows = pred.shape[:-1]
    words = "(...) of pred (..., bins)"
    _check.companion(_OP, "target", target, pred, rows, words)
    for name, vector in (("weight", weight), ("left_weight", left_weight), ("right_weight", right_weight)):
        if vector is not None:
            _check.companion(_OP, name, vector, pred, rows, words)
    if (left_weight is None) != (right_weight is None):
        missing = "left_weight" if left_weight is None else "right_weight"
        raise ValueError(f"{_OP}: left_weight and right_weight must be given together, got no {missing}")
    if bin_values is not None:
        _check.companion(_OP, "bin_values", bin_values, pred, (bins,), "(bins,)")
    _check.number(_OP, "first_bin", first_bin, -1e9, 1e9)
    _check.reduction(_OP, reduction, avg_factor, pred)


_checked = _check.Checked(_check_arguments)
