"""Binary cross entropy with soft targets."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import _check, _reduce
from ..._dispatch import kernels_for
from .._class_targets import by_row_or_element, check_pred, check_target, check_weight
from . import native, reference

_OP = "soft_bce_loss"


def soft_bce_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    _loss_weight: float = 1.0,
) -> Tensor:
    r"""Binary cross entropy of independent sigmoids with soft targets, as YOLOv8 and YOLOX have it.

    The loss is :math:`-t \log p - (1 - t) \log(1 - p)` with p = sigmoid(x), as torch's
    ``binary_cross_entropy_with_logits``. Its targets may also come as (label, score), so that nobody has to make a
    matrix of them.

    Args:
        pred: (N, C) logits.
        target: soft targets (N, C); or ``(label, score)``, each (N,): the target is the score at a label in [0, C), and
            0 everywhere else.
        weight: (N,) or (N, 1) for rows, (N, C) or (N * C,) for elements.
        class_weight: (C,), multiplies the losses of each class.
        reduction: ``"none"`` gives (N, C), ``"mean"`` divides by N * C, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.

    Returns:
        float32 (float64 for float64 pred): a scalar, or (N, C).

    Example:
        >>> pred = torch.randn(8400, 80, requires_grad=True)
        >>> label, score = torch.full((8400,), 80), torch.zeros(8400)
        >>> label[7], score[7] = 3, 0.9
        >>> soft_bce_loss(pred, (label, score), avg_factor=1.0).backward()
    """
    _checked(pred, target, weight, class_weight, reduction, avg_factor)
    weight = by_row_or_element(weight, pred)
    kernels = kernels_for(_OP, pred, native)
    if kernels is not None:
        return kernels.soft_bce_loss(pred, target, weight, class_weight, reduction, avg_factor, _loss_weight)
    loss = reference.soft_bce_loss(pred, target, weight, class_weight, reduction, avg_factor)
    return _reduce.weighted(loss, _loss_weight)


def _check_arguments(pred: Any, target: Any, weight: Any, class_weight: Any, reduction: Any, avg_factor: Any) -> None:
    check_pred(_OP, pred)
    check_target(_OP, target, pred)
    if weight is not None:
        check_weight(_OP, weight, pred)
    if class_weight is not None:
        _check.companion(_OP, "class_weight", class_weight, pred, pred.shape[1:], "(C,)")
    _check.reduction(_OP, reduction, avg_factor, pred)


_checked = _check.Checked(_check_arguments)
