"""Sigmoid focal loss over the maps of a dense head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ... import _check, _reduce
from ..._dispatch import kernels_for
from .._class_targets import check_maps
from . import native, reference

_OP = "multilevel_sigmoid_focal_loss"


def multilevel_sigmoid_focal_loss(
    preds: Sequence[Tensor],
    labels: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    _loss_weight: float = 1.0,
) -> Tensor:
    r""":func:`sigmoid_focal_loss` over all levels of a detector's head (RetinaNet, FCOS, ATSS), in one pass.

    The maps, contiguous or channels-last, are read in place: nothing is permuted or concatenated.

    Args:
        preds: (B, C, H, W) logits of each level, at most 8.
        labels: (B, A) class indices of all positions, with those of the first level first, as in the result of
            :func:`atss_assign`. -2 ignores the position; any other label outside [0, C) is background.
        gamma: exponent of the modulating factor.
        alpha: weight of the positives; negatives have the weight 1 - alpha.
        reduction: ``"mean"`` divides by B * A * C, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.

    Returns:
        A scalar: float32, or float64 for float64 preds.

    Example:
        >>> preds = [torch.randn(2, 80, size, size, requires_grad=True) for size in (16, 8)]
        >>> labels = torch.full((2, 16 * 16 + 8 * 8), 80)
        >>> labels[0, 7] = 3
        >>> multilevel_sigmoid_focal_loss(preds, labels, avg_factor=1.0).backward()
    """
    check_maps(_OP, preds, labels, reduction, avg_factor)
    _check.number(_OP, "gamma", gamma, 0)
    _check.number(_OP, "alpha", alpha, 0, 1)

    run = kernels_for(_OP, preds[0], native) or reference
    loss = run.multilevel_sigmoid_focal_loss(preds, labels, gamma, alpha, reduction, avg_factor)
    return _reduce.weighted(loss, _loss_weight)
