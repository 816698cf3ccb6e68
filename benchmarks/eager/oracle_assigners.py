"""The assigners in matrices of (batch, ground truths, anchors), as detectors run them in eager PyTorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


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
