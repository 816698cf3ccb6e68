"""The box half of the GFL loss on the positives: DFL of the four edges, and an IoU loss of the box they decode to.

Everything is measured in units of the stride, so that one bin is one unit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..._reduce import reduce_loss
from .._formulas import widen
from ..box_iou.reference import box_iou
from ..distribution_focal_loss.reference import distribution_focal_loss
from ..integral.reference import integral
from ..iou_loss.reference import iou_loss


class DistributionBoxLosses(NamedTuple):
    loss_iou: Tensor
    loss_dfl: Tensor
    boxes: Tensor  # (P, 4) xyxy in pixels, detached
    quality: Tensor  # (P,) plain IoU, detached


def distribution_box_loss(
    edge_logits: Tensor,
    anchor_points: Tensor,
    target_boxes: Tensor,
    weight: Tensor | None = None,
    *,
    stride: float | Tensor = 1.0,
    iou_kind: str = "giou",
    eps: float = 1e-6,
    target_margin: float = 0.1,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    eps_rule: str = "floor",
    alpha_rule: str = "half",
) -> DistributionBoxLosses:
    num_bins = edge_logits.shape[1:].numel() // 4
    logits = widen(edge_logits).reshape(-1, 4, num_bins)
    pixels = stride.to(logits.dtype).reshape(-1, 1) if isinstance(stride, Tensor) else float(stride)
    points = anchor_points.to(logits.dtype) / pixels
    target = target_boxes.to(logits.dtype) / pixels

    edges = torch.cat([points - target[:, :2], target[:, 2:] - points], 1)  # left, top, right, bottom
    edges = edges.clamp(0, num_bins - 1 - target_margin)
    dfl = distribution_focal_loss(logits, edges, reduction="none").mean(1)

    distance = integral(logits.flatten(1), num_bins=num_bins)
    boxes = torch.cat([points - distance[:, :2], points + distance[:, 2:]], 1)
    iou = iou_loss(boxes, target, kind=iou_kind, eps=eps, reduction="none", eps_rule=eps_rule, alpha_rule=alpha_rule)
    return DistributionBoxLosses(
        reduce_loss(iou, weight, reduction, avg_factor),
        reduce_loss(dfl, weight, reduction, avg_factor),
        (boxes * pixels).detach(),
        box_iou(boxes.detach(), target, aligned=True),
    )
