"""Sigmoid focal loss on the compiled core."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..._reduce import ELEMENTS, for_kernel
from .._class_loss import SIGMOID_FOCAL, class_loss, kernel_labels, kernel_target, kernel_vector

_loss = class_loss("sigmoid_focal_loss")


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    gamma: float,
    alpha: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    loss_weight: float,
    fused: Callable[..., Tensor] = _loss,
) -> Tensor:
    if target.is_floating_point():
        dense, label = kernel_target(target, pred), None
    else:
        dense, label = None, kernel_labels(target)
    how = for_kernel(reduction, avg_factor, pred, pred.numel(), loss_weight, unreduced=ELEMENTS)
    vector = kernel_vector(weight, pred)
    return fused(pred, *how, dense, label, None, vector, SIGMOID_FOCAL, float(gamma), float(alpha))
