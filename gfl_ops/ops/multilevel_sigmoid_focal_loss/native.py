"""Sigmoid focal loss over levels on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _arguments, _native
from .._class_loss import SIGMOID_FOCAL
from .._multilevel_class_loss import MULTILEVEL_CLASS_LOSS, MultilevelLossOp

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
    preds = [_native.as_map(pred) for pred in preds]
    size = labels.numel() * preds[0].shape[1]
    _, scale, divisor, factor = _arguments.reduction(reduction, avg_factor, preds[0], size)
    labels = labels.to(torch.int32).contiguous()
    return loss(preds, labels, None, factor, scale / max(divisor, 1), SIGMOID_FOCAL, float(gamma), float(alpha))
