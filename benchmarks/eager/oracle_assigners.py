"""The assigners in matrices of ground truths and anchors, as detectors run them in eager PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.eager.oracle_losses import box_iou


def complete_iou(a: Tensor, b: Tensor, eps: float = 1e-7) -> Tensor:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.unbind(-1), b.unbind(-1)
    shared = (torch.min(ax2, bx2) - torch.max(ax1, bx1)).clamp(min=0) * (
        torch.min(ay2, by2) - torch.max(ay1, by1)
    ).clamp(min=0)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1 + eps, bx2 - bx1, by2 - by1 + eps
    iou = shared / (aw * ah + bw * bh - shared + eps)
    diagonal = (torch.max(ax2, bx2) - torch.min(ax1, bx1)) ** 2 + (torch.max(ay2, by2) - torch.min(ay1, by1)) ** 2 + eps
    apart = ((bx1 + bx2 - ax1 - ax2) ** 2 + (by1 + by2 - ay1 - ay2) ** 2) / 4
    shape = 4 / math.pi**2 * (torch.atan(bw / bh) - torch.atan(aw / ah)) ** 2
    return iou - (apart / diagonal + shape * shape / (shape - iou + (1 + eps)))


def task_aligned_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor,
    *,
    topk: int,
    alpha: float,
    min_side: float,
    beta: float = 6.0,
    eps: float = 1e-9,
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    gts = gt_labels.shape[1]
    real = torch.arange(gts, device=gt_boxes.device) < gt_counts[:, None]
    middle, sides = (gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2, gt_boxes[..., 2:] - gt_boxes[..., :2]
    half = torch.where(sides < min_side, min_side, sides) / 2
    to_sides = torch.cat([points - (middle - half)[:, :, None], (middle + half)[:, :, None] - points], -1)
    inside = (to_sides.amin(-1) > eps) & real[..., None]  # (B, G, A)
    of_class = scores.transpose(1, 2).gather(1, gt_labels[..., None].expand(-1, -1, len(points)))
    of_class = torch.where(inside, of_class, 0.0)
    overlap = torch.where(inside, complete_iou(gt_boxes[:, :, None], boxes[:, None]).clamp(min=0), 0.0)
    metric = of_class**alpha * overlap**beta

    best, index = metric.topk(topk, -1)
    claimed = torch.zeros_like(metric).scatter_(2, index, (best > 0).to(metric.dtype))
    highest = functional.one_hot(overlap.argmax(1), gts).transpose(1, 2)
    claimed = torch.where(claimed.sum(1, keepdim=True) > 1, highest, claimed)
    gt, taken = claimed.argmax(1), claimed.sum(1) > 0

    metric, overlap = metric * claimed, overlap * claimed
    score = (metric * overlap.amax(-1, keepdim=True) / (metric.amax(-1, keepdim=True) + eps)).amax(1)
    return torch.where(taken, gt, -1).int(), overlap.amax(1), score


def max_iou_assign(
    anchors: Tensor, gt_boxes: Tensor, gt_counts: Tensor, *, positive_iou: float = 0.5, negative_iou: float = 0.4
) -> tuple[Tensor, Tensor]:
    found = [
        _max_iou(anchors, boxes[:count], positive_iou, negative_iou)
        for boxes, count in zip(gt_boxes, gt_counts, strict=True)
    ]
    return torch.stack([gt for gt, _ in found]).int(), torch.stack([iou for _, iou in found])


def _max_iou(anchors: Tensor, gts: Tensor, positive_iou: float, negative_iou: float) -> tuple[Tensor, Tensor]:
    corner, opposite = torch.max(gts[:, None, :2], anchors[:, :2]), torch.min(gts[:, None, 2:], anchors[:, 2:])
    shared = (opposite - corner).clamp(min=0).prod(2)
    of_gt, of_anchor = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (gts, anchors))
    overlap = shared / (of_gt[:, None] + of_anchor - shared).clamp(min=1e-6)  # (G, A)
    most, gt = overlap.max(0)
    assigned = torch.where(most < negative_iou, -1, -2)
    assigned = torch.where(most >= positive_iou, gt, assigned)
    best = overlap.amax(1)
    for i in range(len(gts)):
        assigned[overlap[i] == best[i]] = i
    own = overlap.gather(0, assigned.clamp(min=0)[None])[0]
    return assigned, torch.where(assigned >= 0, own, 0.0)


# ---- the lowest costs: image by image, in matrices of anchors, ground truths and classes, as mmdet has it ----------

Inside = tuple[Tensor, Tensor]  # (A,) whether an anchor is a candidate, (A, G) whether it is a good one
Costs = Callable[[int, Tensor, Tensor, Tensor, Tensor], Tensor]


def _dynamic_k(cost: Tensor, overlap: Tensor, topk: int) -> tuple[Tensor, Tensor, Tensor]:
    wanted = overlap.topk(min(topk, len(overlap)), 0)[0].sum(0).int().clamp(min=1)
    claimed = torch.zeros_like(cost, dtype=torch.uint8)
    for gt in range(cost.shape[1]):
        claimed[cost[:, gt].topk(wanted[gt].item(), largest=False)[1], gt] = 1
    several = claimed.sum(1) > 1
    if several.any():
        lowest = cost[several].argmin(1)
        claimed[several] = 0
        claimed[several.nonzero()[:, 0], lowest] = 1
    taken = claimed.sum(1) > 0
    return taken, claimed[taken].argmax(1), (claimed * overlap).sum(1)[taken]


def _by_cost(
    boxes: Tensor, gt_boxes: Tensor, gt_counts: Tensor, topk: int, inside: Callable[[Tensor], Inside], cost: Costs
) -> tuple[Tensor, Tensor]:
    assigned = torch.full(boxes.shape[:2], -1, dtype=torch.int32, device=boxes.device)
    ious = boxes.new_zeros(boxes.shape[:2])
    for image, count in enumerate(gt_counts.tolist()):
        gts = gt_boxes[image, :count]
        candidate, good = inside(gts)
        if not count or not candidate.any():
            continue
        overlap = box_iou(boxes[image, candidate], gts)
        taken, gt, iou = _dynamic_k(cost(image, candidate, good[candidate], gts, overlap), overlap, topk)
        places = candidate.nonzero()[:, 0][taken]
        assigned[image, places], ious[image, places] = gt.int(), iou
    return assigned, ious


def _inside(points: Tensor, gts: Tensor) -> Tensor:
    return torch.cat([points[:, None] - gts[:, :2], gts[:, 2:] - points[:, None]], -1).min(-1)[0] > 0


def _one_hot(labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """(A, G, C) targets and scores."""
    target = functional.one_hot(labels, scores.shape[1]).float()[None].repeat(len(scores), 1, 1)
    return target, scores[:, None].repeat(1, len(labels), 1)


def dynamic_soft_label_assign(
    logits: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor,
    *,
    topk: int = 13,
    center_radius: float = 3.0,
    iou_weight: float = 3.0,
) -> tuple[Tensor, Tensor]:
    def inside(gts: Tensor) -> Inside:
        good = _inside(points, gts)
        return good.any(1), good

    def cost(image: int, candidate: Tensor, good: Tensor, gts: Tensor, overlap: Tensor) -> Tensor:
        target, scores = _one_hot(gt_labels[image, : len(gts)], logits[image, candidate])
        target = target * overlap[..., None]
        loss = functional.binary_cross_entropy_with_logits(scores, target, reduction="none")
        classes = (loss * (target - scores.sigmoid()).abs().pow(2.0)).sum(-1)
        middle = (gts[:, :2] + gts[:, 2:]) / 2
        away = (points[candidate, None] - middle).pow(2).sum(-1).sqrt() / strides[candidate, None]
        return classes - torch.log(overlap + 1e-7) * iou_weight + torch.pow(10, away - center_radius)

    return _by_cost(boxes, gt_boxes, gt_counts, topk, inside, cost)


def simota_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor,
    *,
    topk: int = 10,
    center_radius: float = 2.5,
    cls_weight: float = 1.0,
    iou_weight: float = 3.0,
) -> tuple[Tensor, Tensor]:
    def inside(gts: Tensor) -> Inside:
        middle, reach = (gts[:, :2] + gts[:, 2:]) / 2, center_radius * strides[:, None, None]
        near = torch.cat([points[:, None] - (middle - reach), middle + reach - points[:, None]], -1).min(-1)[0] > 0
        within = _inside(points, gts)
        return (near | within).any(1), near & within

    def cost(image: int, candidate: Tensor, good: Tensor, gts: Tensor, overlap: Tensor) -> Tensor:
        target, of_class = _one_hot(gt_labels[image, : len(gts)], scores[image, candidate])
        classes = functional.binary_cross_entropy(of_class, target, reduction="none").sum(-1)
        return classes * cls_weight - torch.log(overlap + 1e-7) * iou_weight + ~good * 1e5

    return _by_cost(boxes, gt_boxes, gt_counts, topk, inside, cost)


def fcos_assign(
    gt_boxes: Tensor,
    gt_counts: Tensor,
    level_shapes: list[tuple[int, int]],
    strides: list[int],
    *,
    ranges: list[tuple[float, float]],
    radius: float = 1.5,
) -> tuple[Tensor, Tensor, Tensor]:
    device = gt_boxes.device
    points, of_cell = [], []
    for (height, width), stride, limits in zip(level_shapes, strides, ranges, strict=True):
        cells = torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1)
        points.append((cells + 0.5) * stride)
        of_cell.append(torch.tensor([[radius * stride, *limits]]).expand(len(cells), 3))
    points, of_cell = torch.cat(points).to(device), torch.cat(of_cell).to(device)
    found = [_fcos(points, of_cell, boxes[:count]) for boxes, count in zip(gt_boxes, gt_counts, strict=True)]
    gt, distances = (torch.stack(parts) for parts in zip(*found, strict=True))
    across, down = distances[..., 0::2], distances[..., 1::2]
    quotients = across.amin(-1) / across.amax(-1) * down.amin(-1) / down.amax(-1)
    return gt.int(), distances, torch.where(gt >= 0, quotients, 0.0).sqrt()


def _fcos(points: Tensor, of_cell: Tensor, gts: Tensor) -> tuple[Tensor, Tensor]:
    half, low, high = of_cell[:, None].unbind(2)
    distances = torch.cat([points[:, None] - gts[:, :2], gts[:, 2:] - points[:, None]], 2)  # (A, G, 4)
    middle = (gts[:, :2] + gts[:, 2:]) / 2
    near = (points[:, None] - middle).abs().amax(2) < half
    longest = distances.amax(2)
    may = near & (distances.amin(2) > 0) & (longest >= low) & (longest <= high)
    area = torch.where(may, (gts[:, 2:] - gts[:, :2]).prod(1), torch.inf)
    least, gt = area.min(1)
    learns = least < torch.inf
    own = distances.gather(1, gt[:, None, None].expand(-1, 1, 4))[:, 0]
    return torch.where(learns, gt, -1), torch.where(learns[:, None], own, 0.0)
