"""RTMDet's assignment (Lyu et al. 2022), image by image, all anchors against all gts."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from .. import _assignment, _cost_assignment
from .._cost_assignment import Pairs
from .._formulas import bce_with_logits


def dynamic_soft_label_assign(
    logits: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None = None,
    *,
    topk: int = 13,
    center_radius: float = 3.0,
    iou_weight: float = 3.0,
) -> tuple[Tensor, Tensor]:
    def costs(pairs: Pairs) -> tuple[Tensor, Tensor]:
        inside = _assignment.points_inside(points, pairs.gts.boxes, 0.0)
        cost = _soft_class_cost(pairs) + _cost_assignment.iou_cost(pairs.iou, iou_weight)
        return cost + _center_prior(pairs, center_radius), _cost_assignment.inside_any(inside, pairs.gts.real)

    return _cost_assignment.assign(costs, logits, boxes, points, strides, gt_boxes, gt_labels, gt_counts, topk)


def _soft_class_cost(pairs: Pairs) -> Tensor:
    """Cross entropy times the squared distance of prediction and target, which is the IoU for the gt's class and 0 for
    the others."""
    logits = pairs.scores
    own = _assignment.scores_of(logits, pairs.gts.labels)
    of_own = bce_with_logits(own, pairs.iou) * (pairs.iou - own.sigmoid()) ** 2
    negative = functional.softplus(logits) * logits.sigmoid() ** 2
    return _cost_assignment.class_cost(negative, of_own, pairs.gts.labels)


def _center_prior(pairs: Pairs, radius: float) -> Tensor:
    """10^(distance from the gt's centre in strides - radius)"""
    centers = (pairs.gts.boxes[:, :2] + pairs.gts.boxes[:, 2:]) / 2
    distance = (pairs.points[:, None] - centers).square().sum(2).sqrt() / pairs.strides[:, None]
    return 10 ** (distance - radius)
