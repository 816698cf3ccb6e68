"""RTMDet's assignment on the compiled core."""

from __future__ import annotations

from torch import Tensor

from .. import _cost_assignment_native as _native


def dynamic_soft_label_assign(
    logits: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None,
    *,
    topk: int,
    center_radius: float,
    iou_weight: float,
) -> tuple[Tensor, Tensor]:
    tensors = (logits, boxes, points, strides, gt_boxes, gt_labels, gt_counts)
    return _native.assign(_native.DYNAMIC_SOFT_LABEL, *tensors, topk, center_radius, 1.0, iou_weight)
