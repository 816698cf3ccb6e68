"""The class loss of a dense head, by its kind."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from .._class_targets import check_maps, check_scores
from . import native, reference
from .native import KINDS

_OP = "class_loss_maps"


def class_loss_maps(
    preds: Sequence[Tensor],
    labels: Tensor,
    scores: Tensor | None = None,
    kind: str = "soft_bce",
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    r"""The class loss of all positions of all levels, in one pass: the second stage of a head's loss, behind an
    assigner and beside :func:`box_loss_maps`.

    ==================== ==================================================================
    ``"soft_bce"``       :func:`multilevel_soft_bce_loss`: YOLOv8 and its successors
    ``"quality_focal"``  :func:`quality_focal_loss`: GFL, TOOD, RTMDet
    ``"varifocal"``      :func:`multilevel_varifocal_loss`: PP-YOLOE
    ``"sigmoid_focal"``  :func:`multilevel_sigmoid_focal_loss`: RetinaNet, FCOS, ATSS
    ==================== ==================================================================

    The maps, contiguous or channels-last, are read in place, and no (positions, classes) target is made.

    Args:
        preds: (B, C, H, W) logits of each level, at most 8.
        labels: (B, A) class indices of all positions, with those of the first level first. -2 ignores the position; any
            other label outside [0, C) is background.
        scores: (B, A) targets of the positives at their own class; not read elsewhere. ``"sigmoid_focal"`` has none.
        kind: see the table.
        gamma: beta of quality focal loss, gamma of varifocal and sigmoid focal loss.
        alpha: of varifocal (0.75 if None) and sigmoid focal loss (0.25 if None).
        reduction: ``"mean"`` divides by B * A * C (sigmoid focal loss: too), ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.

    Returns:
        A scalar: float32, or float64 for float64 preds.

    Example:
        >>> preds = [torch.randn(2, 80, size, size, requires_grad=True) for size in (16, 8)]
        >>> labels, scores = torch.full((2, 16 * 16 + 8 * 8), -1), torch.zeros(2, 16 * 16 + 8 * 8)
        >>> labels[0, 7], scores[0, 7] = 3, 0.9
        >>> class_loss_maps(preds, labels, scores, "quality_focal", avg_factor=1.0).backward()
    """
    check_maps(_OP, preds, labels, reduction, avg_factor)
    check_kind(_OP, "kind", kind, gamma, alpha)
    if (scores is None) != (kind == "sigmoid_focal"):
        needed = "must be None" if scores is not None else "must be a tensor"
        raise ValueError(f"{_OP}: scores {needed} for kind {kind!r}")
    if scores is not None:
        check_scores(_OP, scores, labels, preds[0])
    alpha = alpha_of(kind, alpha)
    run = kernels_for(_OP, preds[0], native) or reference
    return run.class_loss_maps(preds, labels, scores, kind, gamma, alpha, reduction, avg_factor)


def check_kind(op: str, name: str, kind: str, gamma: float, alpha: float | None) -> None:
    _check.choice(op, name, kind, tuple(KINDS))
    _check.number(op, "gamma", gamma, 0)
    if alpha is not None:
        _check.number(op, "alpha", alpha, 0)


def alpha_of(kind: str, alpha: float | None) -> float:
    if alpha is not None:
        return float(alpha)
    return 0.25 if kind == "sigmoid_focal" else 0.75
