"""Sigmoid focal loss over levels on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._class_loss import SIGMOID_FOCAL
from .._multilevel_class_loss import MULTILEVEL_CLASS_LOSS, MultilevelLossOp, run_loss

_LOSS = MultilevelLossOp("multilevel_sigmoid_focal_loss", MULTILEVEL_CLASS_LOSS)


def multilevel_sigmoid_focal_loss(
    preds: Sequence[Tensor],
    labels: Tensor,
    gamma: float,
    alpha: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    loss: MultilevelLossOp = _LOSS,
) -> Tensor:
    return run_loss(loss, preds, labels, None, reduction, avg_factor, SIGMOID_FOCAL, gamma, alpha)
