"""Varifocal loss over the maps of a dense head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ... import _check, _reduce
from ..._dispatch import kernels_for
from .._class_targets import check_maps, check_scores
from . import native, reference

_OP = "multilevel_varifocal_loss"


def multilevel_varifocal_loss(
    preds: Sequence[Tensor],
    labels: Tensor,
    scores: Tensor,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    detach_factor: bool = False,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    _loss_weight: float = 1.0,
) -> Tensor:
    r""":func:`varifocal_loss` of (label, score) over all levels of a detector's head, in one pass.

    The maps, contiguous or channels-last, are read in place: nothing is permuted or concatenated.

    Args:
        preds: (B, C, H, W) logits of each level, at most 8.
        labels: (B, A) class indices of all positions, with those of the first level first. -2 ignores the position; any
            other label outside [0, C) is background.
        scores: (B, A) targets of the positives at their own class; not read elsewhere.
        alpha: weight of the elements that are not positive.
        gamma: exponent of their modulating factor.
        iou_weighted: False leaves out the factor of the positives, which is their score.
        detach_factor: the gradient leaves out that of the modulating factor.
        reduction: ``"mean"`` divides by B * A * C, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.

    Returns:
        A scalar: float32, or float64 for float64 preds.

    Example:
        >>> preds = [torch.randn(2, 80, size, size, requires_grad=True) for size in (16, 8)]
        >>> labels, scores = torch.full((2, 16 * 16 + 8 * 8), 80), torch.zeros(2, 16 * 16 + 8 * 8)
        >>> labels[0, 7], scores[0, 7] = 3, 0.9
        >>> multilevel_varifocal_loss(preds, labels, scores, avg_factor=1.0).backward()
    """
    check_maps(_OP, preds, labels, reduction, avg_factor)
    check_scores(_OP, scores, labels, preds[0])
    _check.number(_OP, "alpha", alpha, 0)
    _check.number(_OP, "gamma", gamma, 0)
    _check.flag(_OP, "iou_weighted", iou_weighted)
    _check.flag(_OP, "detach_factor", detach_factor)

    run = kernels_for(_OP, preds[0], native) or reference
    formula = alpha, gamma, iou_weighted, detach_factor
    loss = run.multilevel_varifocal_loss(preds, labels, scores, *formula, reduction, avg_factor)
    return _reduce.weighted(loss, _loss_weight)
