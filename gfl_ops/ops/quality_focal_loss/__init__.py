"""Quality Focal Loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import _check, _reduce
from ..._dispatch import kernels_for
from .._class_targets import check_pred, check_target
from . import native, reference

_OP = "quality_focal_loss"


def quality_focal_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    beta: float = 2.0,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    activated: bool = False,
    *,
    _loss_weight: float = 1.0,
) -> Tensor:
    r"""Focal loss for class scores that also predict the quality of the box (QFL).

    The loss is :math:`|t - p|^\beta \, \mathrm{BCE}(p, t)` with p = sigmoid(x), summed over the classes of a row
    (https://arxiv.org/abs/2006.04388, equation 3). The target t is the quality of the box at the class of a positive,
    and 0 everywhere else. The gradient includes that of the factor :math:`|t - p|^\beta`.

    Args:
        pred: (N, C) logits, or probabilities with ``activated=True``.
        target: ``(label, score)``, each (N,). A row with a label in [0, C) is positive, also if its score is 0; a row
            with any other label is background. Or soft targets (N, C).
        weight: (N,), multiplies the rows.
        beta: exponent of the modulating factor.
        reduction: ``"none"`` gives (N,), ``"mean"`` divides by N, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead of N: a number, or a tensor of one value.
        activated: pred are probabilities already. A value outside [0, 1] makes the loss of its row NaN.

    Returns:
        float32 (float64 for float64 pred): a scalar, or (N,).

    Example:
        >>> pred = torch.randn(8400, 80, requires_grad=True)
        >>> label, score = torch.full((8400,), 80), torch.zeros(8400)
        >>> label[7], score[7] = 3, 0.9
        >>> quality_focal_loss(pred, (label, score), avg_factor=1.0).backward()
    """
    _checked(pred, target, weight, beta, activated, reduction, avg_factor)
    kernels = kernels_for(_OP, pred, native)
    if kernels is not None:
        return kernels.quality_focal_loss(pred, target, weight, beta, reduction, avg_factor, activated, _loss_weight)
    loss = reference.quality_focal_loss(pred, target, weight, beta, reduction, avg_factor, activated)
    return _reduce.weighted(loss, _loss_weight)


def _check_arguments(
    pred: Any, target: Any, weight: Any, beta: Any, activated: Any, reduction: Any, avg_factor: Any
) -> None:
    check_pred(_OP, pred)
    check_target(_OP, target, pred)
    if weight is not None:
        _check.companion(_OP, "weight", weight, pred, pred.shape[:1], "(N,)")
    _check.number(_OP, "beta", beta, 0)
    _check.flag(_OP, "activated", activated)
    _check.reduction(_OP, reduction, avg_factor, pred)


_checked = _check.Checked(_check_arguments)
