"""Overlap over union of boxes."""

from __future__ import annotations

from torch import Tensor

from .._formulas import widen
from ..iou_loss.reference import floored, inter_union


def box_iou(a: Tensor, b: Tensor, *, aligned: bool = False, eps: float = 1e-6) -> Tensor:
    """(N, M), or (N,) of aligned pairs."""
    a, b = widen(a), widen(b)
    eps = float(eps)
    inter, union = inter_union(a, b) if aligned else inter_union(a[:, None], b)
    return inter / floored(union, eps)
