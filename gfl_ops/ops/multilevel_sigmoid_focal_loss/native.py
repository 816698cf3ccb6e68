"""Sigmoid focal loss over levels on the compiled core."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ... import _native
from ..._reduce import for_kernel
from .._class_loss import SIGMOID_FOCAL
from .._multilevel_class_loss import multilevel_class_loss


def multilevel_sigmoid_focal_loss(
    preds: Sequence[Tensor],
    labels: Tensor,
    gamma: float,
    alpha: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    fused: Callable[..., Tensor] = multilevel_class_loss,
) -> Tensor:
    preds = [_native.as_map(pred) for pred in preds]
    size = labels.numel() * preds[0].shape[1]
    how = for_kernel(reduction, avg_factor, preds[0], size, 1.0)
    return fused(
        "multilevel_sigmoid_focal_loss",
        preds,
        labels.to(torch.int32).contiguous(),
        None,
        how.avg_factor,
        how.scale / max(how.divisor, 1),
        SIGMOID_FOCAL,
        float(gamma),
        float(alpha),
    )
