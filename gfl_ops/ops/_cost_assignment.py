"""Assignment by the lowest costs with a number of anchors for each ground truth, as RTMDet and YOLOX have it: what both
share, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import _assignment
from .box_iou.reference import box_iou

IOU_EPS = 1e-7  # keeps the logarithm of an IoU finite


class CostAssignment(NamedTuple):
    """Of each anchor of each image; both are (B, A)."""

    assigned_gt: Tensor
    """int32: the index of a ground truth, or -1 for background."""
    assigned_iou: Tensor
    """The IoU of the anchor's box with its ground truth, 0 for background."""


class Pairs(NamedTuple):
    """Of one image: what a cost is made of. A is the anchors, G the ground truths, C the classes."""

    scores: Tensor  # (A, C)
    iou: Tensor  # (A, G), 0 where it is NaN
    points: Tensor  # (A, 2)
    strides: Tensor  # (A,)
    gts: _assignment.GroundTruths


# (A, G) costs, and (A,) whether an anchor lies where it can belong to one.
Costs = Callable[[Pairs], tuple[Tensor, Tensor]]


def assign(
    costs: Costs,
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None,
    topk: int,
) -> tuple[Tensor, Tensor]:
    anchors = boxes.shape[1]
    assigned, ious = [gt_labels.new_empty(0, anchors, dtype=torch.int64)], [boxes.new_empty(0, anchors)]
    for image in range(len(boxes)):
        count = None if gt_counts is None else gt_counts[image]
        gts = _assignment.ground_truths(gt_boxes[image], gt_labels[image], count, scores.shape[2])
        iou = box_iou(boxes[image], gts.boxes)
        pairs = Pairs(scores[image].to(boxes.dtype), torch.where(iou > 0, iou, 0.0), points, strides, gts)
        found = _assigned(costs, pairs, boxes[image].isfinite().all(1) & (strides > 0), topk)
        for results, x in zip((assigned, ious), found, strict=True):
            results.append(x[None])
    return torch.cat(assigned).int(), torch.cat(ious)


def _assigned(costs: Costs, pairs: Pairs, sound: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    background = torch.full((len(sound),), _assignment.BACKGROUND, device=sound.device)
    if pairs.iou.numel() == 0:
        return background, pairs.iou.new_zeros(len(sound))
    cost, can = costs(pairs)
    cost = torch.where((can & sound)[:, None] & pairs.gts.real, cost, torch.nan)  # NaN: no pair
    claims = _claims(cost, torch.where(cost.isnan(), 0.0, pairs.iou), topk)
    gt = _settled(claims, cost)
    taken = claims.any(1)
    iou = pairs.iou.gather(1, gt[:, None])[:, 0]
    return torch.where(taken, gt, background), torch.where(taken, iou, 0.0)


def _claims(cost: Tensor, iou: Tensor, topk: int) -> Tensor:
    """(A, G): a gt claims its k lowest costs, the lower index where two tie. k is the sum of its topk IoUs, rounded
    down, but at least 1."""
    topk = min(topk, len(cost))
    best = iou.topk(topk, dim=0).values
    wanted = best.double().sum(0).to(best.dtype).int().clamp(1, topk)
    index = cost.argsort(dim=0, stable=True)[:topk]  # NaN comes last
    among = torch.arange(topk, device=cost.device)[:, None] < wanted
    return torch.zeros_like(cost, dtype=torch.bool).scatter(0, index, among) & ~cost.isnan()


def _settled(claims: Tensor, cost: Tensor) -> Tensor:
    """(A,): the gt that claims an anchor; if several do, the lowest cost of all, claimants or not, the first of equal
    ones."""
    rivals = torch.where(claims.sum(1, keepdim=True) > 1, ~cost.isnan(), claims)
    lowest = torch.where(rivals, cost, torch.inf).amin(1, keepdim=True)
    return (rivals & (cost == lowest)).int().argmax(1)


def iou_cost(iou: Tensor, weight: float) -> Tensor:
    return -(iou + IOU_EPS).log() * weight


def class_cost(negative: Tensor, of_own: Tensor, labels: Tensor) -> Tensor:
    """(A, G): the sum of (A, C) terms over all classes but the gt's, and (A, G) of its own."""
    classes = negative.shape[1]
    others = 1 - torch.eye(classes, dtype=torch.float64, device=negative.device)
    huge = torch.finfo(torch.float32).max  # infinity times 0 would be NaN
    of_others = (negative.double().clamp(max=huge) @ others).to(negative.dtype)
    return _assignment.scores_of(of_others, labels) + of_own


def inside_any(inside: Tensor, real: Tensor) -> Tensor:
    return (inside & real).any(1)
