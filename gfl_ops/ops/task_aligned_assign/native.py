"""Task-aligned assignment on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._native import Kernel, as_map
from ..._op import Op, Size, arguments_of

# gfl_iou_kind in csrc/gfl.h
IOU_KINDS = {"iou": 0, "ciou": 3}


class TaskAlignedAssign(NamedTuple):
    """gfl_task_aligned_assign in csrc/gfl.h"""

    boxes: Tensor
    scores: list[Tensor]  # maps as as_map leaves them, or one (B, C, A, 1) of all levels
    points: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor
    gt_counts: Tensor | None
    heights: list[Size]
    widths: list[Size]
    strides: list[float]
    center_offset: float
    logits: bool
    topk: int
    final_topk: int
    alpha: float
    beta: float
    inside_first: bool
    min_side: float
    iou_kind: int


_kernel = Kernel(
    "task_aligned_assign_run",
    (
        *TaskAlignedAssign._fields[:6],
        *("levels", *TaskAlignedAssign._fields[9:]),
        *("batch", "anchors", "classes", "num_gts", "dtype"),
        *("assigned_gt", "assigned_iou", "assigned_score", "labels"),
    ),
)


Assigned = tuple[Tensor, Tensor, Tensor, Tensor]


def _outputs_like(boxes: Tensor, *args: Any) -> Assigned:
    size = boxes.shape[:2]
    assigned_gt = boxes.new_empty(size, dtype=torch.int32)
    return assigned_gt, boxes.new_empty(size), boxes.new_empty(size), torch.empty_like(assigned_gt)


def _assign(boxes: Tensor, *args: Any) -> Assigned:
    outputs = _outputs_like(boxes)
    tensors, levels, options = args[:5], args[5:8], args[8:]
    sizes = (*boxes.shape[:2], tensors[0][0].shape[1], tensors[2].shape[1])
    _kernel.run(boxes, *tensors, levels, *options, *sizes, boxes, *outputs)
    return outputs


_assign_op = Op(
    "task_aligned_assign", arguments_of(TaskAlignedAssign), "(Tensor, Tensor, Tensor, Tensor)", _assign, _outputs_like
)


def task_aligned_assign(
    scores: Tensor | Sequence[Tensor],
    boxes: Tensor,
    points: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None,
    *,
    topk: int,
    final_topk: int | None,
    alpha: float,
    beta: float,
    inside_first: bool,
    min_side: float,
    iou: str,
    logits: bool,
    level_shapes: Sequence[tuple[int, int]] | None,
    strides: Sequence[float] | None,
    center_offset: float,
) -> Assigned:
    return _assign_op(
        boxes.contiguous(),
        [scores.transpose(1, 2).unsqueeze(3)] if isinstance(scores, Tensor) else [as_map(x) for x in scores],
        points.contiguous(),
        gt_boxes.contiguous(),
        gt_labels.long().contiguous(),
        None if gt_counts is None else gt_counts.long().contiguous(),
        [height for height, _ in level_shapes or ()],
        [width for _, width in level_shapes or ()],
        [float(stride) for stride in strides or ()],
        float(center_offset),
        logits,
        topk,
        final_topk or 0,
        float(alpha),
        float(beta),
        inside_first,
        float(min_side),
        IOU_KINDS[iou],
    )
