"""FCOS's assignment (Tian et al. 2019), image by image and level by level, some ground truths at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _assignment

GTS_TOGETHER = 64


def fcos_assign(
    gt_boxes: Tensor,
    gt_counts: Tensor | None,
    level_shapes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    *,
    ranges: Sequence[tuple[float, float]],
    radius: float,
    center_offset: float,
) -> tuple[Tensor, Tensor, Tensor]:
    levels = []
    for shape, stride, limits in zip(level_shapes, strides, ranges, strict=True):
        points = _points(gt_boxes, shape, stride, center_offset)
        gts, distances = (
            [gt_boxes.new_empty(0, len(points), dtype=torch.int64)],
            [gt_boxes.new_empty(0, len(points), 4)],
        )
        for image, boxes in enumerate(gt_boxes):
            real = _assignment.real_boxes(boxes, None if gt_counts is None else gt_counts[image])
            gt = _smallest(points, boxes, real, limits, stride * radius)
            gts.append(gt[None])
            padded = torch.cat([boxes, boxes.new_zeros(1, 4)])  # a last one for the background
            distances.append(torch.where(gt[:, None] >= 0, _distances(points, padded[gt]), 0.0)[None])
        levels.append((torch.cat(gts), torch.cat(distances)))
    assigned, to = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
    return assigned.int(), to, _centerness(to)


def _points(like: Tensor, shape: tuple[int, int], stride: float, center_offset: float) -> Tensor:
    y, x = ((torch.arange(cells, device=like.device).to(like.dtype) + center_offset) * stride for cells in shape)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), 2).reshape(-1, 2)


def _distances(points: Tensor, boxes: Tensor) -> Tensor:
    """To the left, top, right and bottom side."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)


def _smallest(points: Tensor, boxes: Tensor, real: Tensor, limits: tuple[float, float], half: float) -> Tensor:
    """(A,) the smallest gt that a point may learn, the first of equal ones, or -1."""
    least = points.new_full((len(points),), torch.inf)
    gt = torch.full_like(least, -1, dtype=torch.int64)
    for first in range(0, len(boxes) if len(points) else 0, GTS_TOGETHER):
        some = boxes[first : first + GTS_TOGETHER]
        longest = _distances(points[:, None], some).amax(2)
        inside = _assignment.points_inside(points, _reach(some, half), 0.0) & real[first : first + GTS_TOGETHER]
        may = inside & (longest >= limits[0]) & (longest <= limits[1])
        area = (some[:, 2:] - some[:, :2]).prod(1)
        smaller, index = torch.where(may, area, torch.inf).min(1)
        gt = torch.where(smaller < least, index + first, gt)
        least = torch.minimum(least, smaller)
    return gt


def _reach(boxes: Tensor, half: float) -> Tensor:
    """What a point must lie inside of: a square around the centre, cut to the box."""
    if half == 0:
        return boxes
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat([torch.maximum(middle - half, boxes[:, :2]), torch.minimum(middle + half, boxes[:, 2:])], 1)


def _centerness(distances: Tensor) -> Tensor:
    across, down = distances[..., 0::2], distances[..., 1::2]
    quotients = [sides.amin(-1) / sides.amax(-1) for sides in (across, down)]
    return torch.where(distances[..., 0] > 0, (quotients[0] * quotients[1]).sqrt(), 0.0)
