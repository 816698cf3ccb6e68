"""Sigmoid focal loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import _check, _reduce
from ..._dispatch import kernels_for
from .._class_targets import by_row_or_element, check_pred, check_weight
from . import native, reference

_OP = "sigmoid_focal_loss"


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    _loss_weight: float = 1.0,
) -> Tensor:
    r"""Focal loss of independent sigmoids (https://arxiv.org/abs/1708.02002).

    The loss is :math:`\alpha_t \, u^\gamma \, \mathrm{BCE}(p, t)` with p = sigmoid(x). u = p (1 - t) + (1 - p) t is
    how far p is from t, and alpha_t = alpha t + (1 - alpha)(1 - t).

    Args:
        pred: (N, C) logits.
        target: (N,) class indices, where any index outside [0, C) is background; or (N, C) targets in [0, 1].
        weight: (N,) or (N, 1) for rows, (N, C) or (N * C,) for elements.
        gamma: exponent of the modulating factor.
        alpha: weight of the positives; negatives have the weight 1 - alpha.
        reduction: ``"none"`` gives (N, C), ``"mean"`` divides by N * C, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.

    Returns:
        float32 (float64 for float64 pred): a scalar, or (N, C).

    Example:
        >>> pred = torch.randn(8400, 80, requires_grad=True)
        >>> target = torch.full((8400,), 80)
        >>> target[7] = 3
        >>> sigmoid_focal_loss(pred, target, avg_factor=1.0).backward()
    """
    _checked(pred, target, weight, gamma, alpha, reduction, avg_factor)
    if weight is not None:
        weight = by_row_or_element(weight, pred)
    kernels = kernels_for(_OP, pred, native)
    if kernels is not None:
        return kernels.sigmoid_focal_loss(pred, target, weight, gamma, alpha, reduction, avg_factor, _loss_weight)
    loss = reference.sigmoid_focal_loss(pred, target, weight, gamma, alpha, reduction, avg_factor)
    return _reduce.weighted(loss, _loss_weight)


def _check_arguments(
    pred: Any, target: Any, weight: Any, gamma: Any, alpha: Any, reduction: Any, avg_factor: Any
) -> None:
    check_pred(_OP, pred)
    _check.tensor(_OP, "target", target)
    if target.is_floating_point():
        _check.companion(_OP, "target", target, pred, pred.shape, "(N, C)")
    else:
        _check.labels(_OP, "target", target, pred, pred.shape[:1], "(N,)")
    if weight is not None:
        check_weight(_OP, weight, pred)
    _check.number(_OP, "gamma", gamma, 0)
    _check.number(_OP, "alpha", alpha, 0, 1)
    _check.reduction(_OP, reduction, avg_factor, pred)


_checked = _check.Checked(_check_arguments)
