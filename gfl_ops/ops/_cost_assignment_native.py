"""Assignment by the lowest costs on the compiled core."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._native import Kernel
from .._op import Op, arguments_of

# gfl_cost_kind in csrc/gfl.h
DYNAMIC_SOFT_LABEL, SIMOTA = 0, 1


class CostAssign(NamedTuple):
    """gfl_cost_assign in csrc/gfl.h"""

    boxes: Tensor
    scores: Tensor  # (B, C, A, 1)
    points: Tensor
    strides: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor
    gt_counts: Tensor | None
    kind: int
    topk: int
    center_radius: float
    cls_weight: float
    iou_weight: float


_kernel = Kernel(
    "cost_assign_run",
    (*CostAssign._fields, "batch", "anchors", "classes", "num_gts", "dtype", "assigned_gt", "assigned_iou"),
)


def _outputs_like(boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    size = boxes.shape[:2]
    return boxes.new_empty(size, dtype=torch.int32), boxes.new_empty(size)


def _assign(boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    outputs = _outputs_like(boxes)
    sizes = (*boxes.shape[:2], args[0].shape[1], args[3].shape[1])
    _kernel.run(boxes, *args, *sizes, boxes, *outputs)
    return outputs


_assign_op = Op("cost_assign", arguments_of(CostAssign), "(Tensor, Tensor)", _assign, _outputs_like)


def assign(
    kind: int,
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None,
    topk: int,
    center_radius: float,
    cls_weight: float,
    iou_weight: float,
) -> tuple[Tensor, Tensor]:
    return _assign_op(
        boxes.contiguous(),
        scores.transpose(1, 2).unsqueeze(3),
        points.contiguous(),
        strides.contiguous(),
        gt_boxes.contiguous(),
        gt_labels.long().contiguous(),
        None if gt_counts is None else gt_counts.long().contiguous(),
        kind,
        topk,
        float(center_radius),
        float(cls_weight),
        float(iou_weight),
    )
