"""Varifocal loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import _check, _reduce
from ..._dispatch import kernels_for
from .._class_targets import by_row_or_element, check_pred, check_target, check_weight
from . import native, reference

_OP = "varifocal_loss"


def varifocal_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    detach_factor: bool = False,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    _loss_weight: float = 1.0,
) -> Tensor:
    r"""Focal loss of the negatives alone, for class scores that also predict the quality of the box.

    With p = sigmoid(x) and the target t, the loss is :math:`t \, \mathrm{BCE}(p, t)` of a positive and
    :math:`\alpha \, |p - t|^\gamma \, \mathrm{BCE}(p, t)` of every other element
    (https://arxiv.org/abs/2008.13367, equation 2).

    Args:
        pred: (N, C) logits.
        target: soft targets (N, C), of which those above 0 are positive (VFNet, mmdet). Or ``(label, score)``, each
            (N,): a row with a label in [0, C) is positive at that class, also if its score is 0, and its target there
            is the score (RT-DETR, PP-YOLOE); every other target is 0.
        weight: (N,) or (N, 1) for rows, (N, C) or (N * C,) for elements.
        alpha: weight of the elements that are not positive.
        gamma: exponent of their modulating factor.
        iou_weighted: False leaves out the factor t of the positives.
        detach_factor: the gradient leaves out that of :math:`|p - t|^\gamma`, as in RT-DETR; mmdet's has it.
        reduction: ``"none"`` gives (N, C), ``"mean"`` divides by N * C, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.

    Returns:
        float32 (float64 for float64 pred): a scalar, or (N, C).

    Example:
        >>> pred = torch.randn(8400, 80, requires_grad=True)
        >>> label, score = torch.full((8400,), 80), torch.zeros(8400)
        >>> label[7], score[7] = 3, 0.9
        >>> varifocal_loss(pred, (label, score), avg_factor=1.0).backward()
    """
    _checked(pred, target, weight, alpha, gamma, iou_weighted, detach_factor, reduction, avg_factor)
    weight = by_row_or_element(weight, pred)
    formula = alpha, gamma, iou_weighted, detach_factor
    kernels = kernels_for(_OP, pred, native)
    if kernels is not None:
        return kernels.varifocal_loss(pred, target, weight, *formula, reduction, avg_factor, _loss_weight)
    loss = reference.varifocal_loss(pred, target, weight, *formula, reduction, avg_factor)
    return _reduce.weighted(loss, _loss_weight)


def _check_arguments(
    pred: Any,
    target: Any,
    weight: Any,
    alpha: Any,
    gamma: Any,
    iou_weighted: Any,
    detach_factor: Any,
    reduction: Any,
    avg_factor: Any,
) -> None:
    check_pred(_OP, pred)
    check_target(_OP, target, pred)
    if weight is not None:
        check_weight(_OP, weight, pred)
    _check.number(_OP, "alpha", alpha, 0)
    _check.number(_OP, "gamma", gamma, 0)
    _check.flag(_OP, "iou_weighted", iou_weighted)
    _check.flag(_OP, "detach_factor", detach_factor)
    _check.reduction(_OP, reduction, avg_factor, pred)


_checked = _check.Checked(_check_arguments)
