"""Quality focal loss on the compiled core."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..._reduce import for_kernel
from .._class_loss import (
    QUALITY_FOCAL,
    QUALITY_FOCAL_PROBABILITY,
    class_loss,
    kernel_labels,
    kernel_target,
    kernel_vector,
)

_loss = class_loss("quality_focal_loss")


def quality_focal_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None,
    beta: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    activated: bool,
    loss_weight: float,
    fused: Callable[..., Tensor] = _loss,
) -> Tensor:
    if isinstance(target, Tensor):
        dense, label, score = kernel_target(target, pred), None, None
    else:
        dense, label, score = None, kernel_labels(target[0]), kernel_vector(target[1], pred)
    formula = QUALITY_FOCAL_PROBABILITY if activated else QUALITY_FOCAL
    how = for_kernel(reduction, avg_factor, pred, pred.shape[0], loss_weight)
    return fused(pred, *how, dense, label, score, kernel_vector(weight, pred), formula, float(beta), 0.0)
