"""Distribution Focal Loss."""

from __future__ import annotations

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
    r"""Cross entropy of a distribution over bins on the two bins around its target, weighted by nearness.

    With l = floor(y) and r = l + 1: :math:`-(r - y) \log p_l - (y - l) \log p_r`. A target on the last bin has that
    bin alone. One outside the bins, or NaN, makes its row NaN; clamp targets first, as detection heads do.

    Args:
        pred: (..., bins) logits, 2 to 256 bins.
        target: (...), in units of bins.
        weight: (...), multiplies the rows.
        reduction: ``"none"`` gives (...), ``"mean"`` divides by the number of targets, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.
        first_bin: the value of the first bin; PP-YOLOE's head for small objects starts at -2.
        bin_values: (bins,) increasing values, for bins that are not a unit apart (D-FINE).
        left_weight: (...), with right_weight: what to weight the two bins by instead of nearness.
        right_weight: (...), dropped where the target is on the last bin.

    Returns:
        float32 (float64 for float64 pred): a scalar, or (...).

    Example:
        >>> pred = torch.randn(512, 17, requires_grad=True)
        >>> distribution_focal_loss(pred, torch.rand(512) * 15.9).backward()
    """
    _check.floating(_OP, "pred", pred)
    if pred.ndim < 1:
        raise ValueError(f"{_OP}: pred must be (..., bins), got {tuple(pred.shape)}")
    bins = pred.shape[-1]
    _check.num_bins(_OP, "the number of bins, pred's last dimension,", bins)
    rows = pred.shape[:-1]
    words = "(...) of pred (..., bins)"
    _check.companion(_OP, "target", target, pred, rows, words)
    for name, vector in (("weight", weight), ("left_weight", left_weight), ("right_weight", right_weight)):
        if vector is not None:
            _check.companion(_OP, name, vector, pred, rows, words)
    if (left_weight is None) != (right_weight is None):
        missing = "left_weight" if left_weight is None else "right_weight"
        raise ValueError(f"{_OP}: left_weight and right_weight go together, got no {missing}")
    if bin_values is not None:
        _check.companion(_OP, "bin_values", bin_values, pred, (bins,), "(bins,)")
    _check.number(_OP, "first_bin", first_bin, -1e9, 1e9)
    _reduce.check(_OP, reduction, avg_factor, pred)

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
