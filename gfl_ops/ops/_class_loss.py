"""The raw ops behind the losses of one logit per (row, class)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .._op import NativeLoss, RawLoss, Size

# gfl_class_formula in csrc/gfl.h
QUALITY_FOCAL, QUALITY_FOCAL_PROBABILITY, SIGMOID_FOCAL, SOFT_CROSS_ENTROPY = 0, 1, 2, 3


def varifocal(iou_weighted: bool, detach_factor: bool) -> int:
    """GFL_VARIFOCAL and its forms."""
    return 4 + (not iou_weighted) + 2 * detach_factor


class ClassLoss(NamedTuple):
    """gfl_class_loss in csrc/gfl.h"""

    pred: Tensor
    mode: int
    scale: float
    divisor: Size
    avg_factor: Tensor | None
    target: Tensor | None
    labels: Tensor | None
    scores: Tensor | None
    weight: Tensor | None
    class_weights: Tensor | None
    formula: int
    exponent: float
    alpha: float


CLASS_LOSS = RawLoss("class_loss", ClassLoss, NativeLoss("class_loss", ClassLoss, "rows", "cols"))
