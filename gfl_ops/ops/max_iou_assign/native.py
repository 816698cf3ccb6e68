"""Assignment by the highest IoU on the compiled core."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._native import Kernel
from ..._op import Op, arguments_of


class MaxIouAssign(NamedTuple):
    """gfl_max_iou_assign in csrc/gfl.h"""

    anchors: Tensor  # (A, 4), or (B, A, 4)
    gt_boxes: Tensor
    gt_counts: Tensor | None
    valid: Tensor | None  # (A,), or (B, A)
    positive_iou: float
    background_from: float
    background_below: float
    least_iou: float
    all_best: bool


_kernel = Kernel(
    "max_iou_assign_run",
    (
        *MaxIouAssign._fields,
        *("batch", "num_gts", "num_anchors", "anchors_stride", "valid_stride", "dtype"),
        *("assigned_gt", "assigned_iou"),
    ),
)


def _outputs_like(anchors: Tensor, gt_boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    size = (gt_boxes.shape[0], anchors.shape[-2])
    return anchors.new_empty(size, dtype=torch.int32), anchors.new_empty(size)


def _assign(anchors: Tensor, gt_boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    outputs = _outputs_like(anchors, gt_boxes)
    size, valid = anchors.shape[-2], args[1]
    strides = (4 * size if anchors.ndim == 3 else 0, size if valid is not None and valid.ndim == 2 else 0)
    _kernel.run(anchors, gt_boxes, *args, *gt_boxes.shape[:2], size, *strides, anchors, *outputs)
    return outputs


_assign_op = Op("max_iou_assign", arguments_of(MaxIouAssign), "(Tensor, Tensor)", _assign, _outputs_like)


def max_iou_assign(
    anchors: Tensor,
    gt_boxes: Tensor,
    gt_counts: Tensor | None,
    valid: Tensor | None,
    *,
    positive_iou: float,
    background: tuple[float, float],
    least_iou: float,
    all_best: bool,
) -> tuple[Tensor, Tensor]:
    return _assign_op(
        anchors.contiguous(),
        gt_boxes.contiguous(),
        None if gt_counts is None else gt_counts.long().contiguous(),
        None if valid is None else valid.to(torch.uint8).contiguous(),
        positive_iou,
        *background,
        least_iou,
        all_best,
    )
