"""SimOTA on the compiled core."""

from __future__ import annotations

from torch import Tensor

from .. import _cost_assignment_native as _native


def simota_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None,
    *,
    topk: int,
    center_radius: float,
    cls_weight: float,
    iou_weight: float,
) -> tuple[Tensor, Tensor]:
    tensors = (scores, boxes, points, strides, gt_boxes, gt_labels, gt_counts)
    return _native.assign(_native.SIMOTA, *tensors, topk, center_radius, cls_weight, iou_weight)
