"""Adaptive Training Sample Selection (Zhang et al. 2020), image by image, all anchors against all ground truths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..box_iou.reference import box_iou

BACKGROUND, OUTSIDE = -1, -2


def atss_assign(
    gt_boxes: Tensor,
    gt_counts: Tensor,
    level_shapes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    valid_shapes: Tensor | None = None,
    *,
    topk: int = 9,
    anchor_scale: float = 8.0,
    center_offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    centers, sides = anchor_grid(gt_boxes, level_shapes, strides, center_offset)
    anchors = torch.cat([centers - sides * anchor_scale / 2, centers + sides * anchor_scale / 2], 1)
    sizes = [height * width for height, width in level_shapes]
    assigned, ious = [anchors.new_empty(0, len(anchors), dtype=torch.int64)], [anchors.new_empty(0, len(anchors))]
    for image, boxes in enumerate(gt_boxes):
        valid = _valid_cells(centers, level_shapes, strides, center_offset, valid_shapes, image)
        exists = torch.arange(len(boxes), device=boxes.device) < gt_counts[image]
        gt, iou = _assign_image(anchors, centers, sizes, valid, boxes, exists, topk)
        assigned.append(gt[None])
        ious.append(iou[None])
    return torch.cat(assigned).int(), torch.cat(ious).float()


def _assign_image(
    anchors: Tensor, centers: Tensor, sizes: list[int], valid: Tensor, boxes: Tensor, exists: Tensor, topk: int
) -> tuple[Tensor, Tensor]:
    background = torch.where(valid, BACKGROUND, OUTSIDE)
    if len(boxes) == 0:
        return background, torch.zeros_like(anchors[:, 0])
    overlap = box_iou(anchors, boxes)  # (A, G)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = (centers[:, None] - middle).square().sum(2).masked_fill(~valid[:, None], torch.inf)
    candidate = _nearest(distance, sizes, topk)

    count = candidate.sum(0)
    mean = torch.where(candidate, overlap, 0.0).sum(0) / count
    deviation = (torch.where(candidate, overlap - mean, 0.0).square().sum(0) / (count - 1)).sqrt()
    inside = torch.cat([centers[:, None] - boxes[:, :2], boxes[:, 2:] - centers[:, None]], 2).amin(2) > 0.01
    positive = candidate & inside & (overlap >= mean + deviation) & exists & middle.isfinite().all(1)

    best, gt = overlap.masked_fill(~positive, -torch.inf).max(1)  # the first gt where two tie
    taken = positive.any(1)
    return torch.where(taken, gt, background), torch.where(taken, best, 0.0)


def _nearest(distance: Tensor, sizes: list[int], topk: int) -> Tensor:
    """(A, G): whether an anchor is one of the k nearest of its level; ties go to the lower index."""
    chosen = []
    for level in distance.split(sizes):
        index = level.argsort(dim=0, stable=True)[:topk]
        mask = torch.zeros_like(level, dtype=torch.bool).scatter(0, index, True)
        chosen.append(mask & level.isfinite())
    return torch.cat(chosen)


def anchor_grid(
    like: Tensor, level_shapes: Sequence[tuple[int, int]], strides: Sequence[float], center_offset: float
) -> tuple[Tensor, Tensor]:
    """(A, 2) anchor centres in pixels, (A, 1) strides; level after level, row after row."""
    centers, sides = [], []
    for (height, width), stride in zip(level_shapes, strides, strict=True):
        y = torch.arange(height, dtype=like.dtype, device=like.device) * stride + center_offset * stride
        x = torch.arange(width, dtype=like.dtype, device=like.device) * stride + center_offset * stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        centers.append(torch.stack([columns, rows], 2).reshape(-1, 2))
        sides.append(torch.full((height * width, 1), stride, dtype=like.dtype, device=like.device))
    return torch.cat(centers), torch.cat(sides)


def _valid_cells(
    centers: Tensor,
    level_shapes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    center_offset: float,
    valid_shapes: Tensor | None,
    image: int,
) -> Tensor:
    """(A,): cell i of a row or column begins at i strides, inside the valid part of the image."""
    if valid_shapes is None:
        return torch.ones_like(centers[:, 0], dtype=torch.bool)
    height, width = valid_shapes[image].to(centers.dtype)
    masks = []
    for (rows, columns), stride in zip(level_shapes, strides, strict=True):
        y = torch.arange(rows, dtype=centers.dtype, device=centers.device) * stride < height
        x = torch.arange(columns, dtype=centers.dtype, device=centers.device) * stride < width
        masks.append((y[:, None] & x).reshape(-1))
    return torch.cat(masks)
