"""SimOTA (YOLOX, Ge et al. 2021), image by image, all anchors against all gts."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _assignment, _cost_assignment
from .._cost_assignment import Pairs

FAR = 1e5  # the cost of an anchor that is not both inside of the box and near its centre
LEAST_LOG = -100.0


def simota_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None = None,
    *,
    topk: int = 10,
    center_radius: float = 2.5,
    cls_weight: float = 1.0,
    iou_weight: float = 3.0,
) -> tuple[Tensor, Tensor]:
    def costs(pairs: Pairs) -> tuple[Tensor, Tensor]:
        inside = _assignment.points_inside(points, pairs.gts.boxes, 0.0)
        near = _near_center(pairs, center_radius)
        iou = _cost_assignment.iou_cost(pairs.iou, iou_weight)
        cost = _class_cost(pairs) * cls_weight + iou + (~(inside & near)).to(iou.dtype) * FAR
        return cost, _cost_assignment.inside_any(inside | near, pairs.gts.real)

    return _cost_assignment.assign(costs, scores, boxes, points, strides, gt_boxes, gt_labels, gt_counts, topk)


def _class_cost(pairs: Pairs) -> Tensor:
    """Cross entropy with the gt's class, logarithms clamped as in torch."""
    scores = torch.where(pairs.scores > 0, pairs.scores, 0.0).clamp(max=1)
    own = _assignment.scores_of(scores, pairs.gts.labels)
    negative = -torch.log1p(-scores).clamp(min=LEAST_LOG)
    return _cost_assignment.class_cost(negative, -own.log().clamp(min=LEAST_LOG), pairs.gts.labels)


def _near_center(pairs: Pairs, radius: float) -> Tensor:
    """(A, G): whether a point is closer to a gt's centre than the radius in strides, along both axes."""
    centers = (pairs.gts.boxes[:, :2] + pairs.gts.boxes[:, 2:]) / 2
    reach = radius * pairs.strides[:, None, None]
    points = pairs.points[:, None]
    return (torch.cat([points - (centers - reach), (centers + reach) - points], 2) > 0).all(2)
