"""The overlap of boxes on the compiled core."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..._arguments import compute_dtype
from ..._native import Kernel
from ..._op import Op

ARGUMENTS = {"a": Tensor, "b": Tensor, "aligned": bool, "eps": float}
_kernel = Kernel("box_iou_forward", (*ARGUMENTS, "rows", "cols", "iou"))


def iou_like(a: Tensor, b: Tensor, aligned: bool, eps: float) -> Tensor:
    size = (a.shape[0],) if aligned else (a.shape[0], b.shape[0])
    return torch.empty(size, dtype=compute_dtype(a), device=a.device)


def _box_iou(a: Tensor, b: Tensor, aligned: bool, eps: float) -> Tensor:
    iou = iou_like(a, b, aligned, eps)
    _kernel.run(a, b, aligned, eps, a.shape[0], 1 if aligned else b.shape[0], iou)
    return iou


_box_iou_op = Op("box_iou", ARGUMENTS, "Tensor", _box_iou, iou_like)


def box_iou(a: Tensor, b: Tensor, aligned: bool, eps: float, op: Callable[..., Tensor] = _box_iou_op) -> Tensor:
    if a.dtype != b.dtype:
        common = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        a, b = a.to(common), b.to(common)
    return op(a, b, aligned, float(eps))
