"""Which prior learns which ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

import gfl_ops

from .parts import Grid, GroundTruths, Priors

_AT_A_TIME = 16  # ground truths: a mask of all of them at once would not fit


class Assigner(Protocol):
    def assign(self, grid: Grid, priors: Priors, gts: GroundTruths, padded_shapes: Tensor) -> Tensor:
        """(B, A) integers: the index of a ground truth, -1 for background, -2 for what takes no part."""


@dataclass(frozen=True)
class ATSS:
    """Adaptive training sample selection, on one square prior a cell."""

    topk: int = 9

    def assign(self, grid: Grid, priors: Priors, gts: GroundTruths, padded_shapes: Tensor) -> Tensor:
        assigned, _ = gfl_ops.atss_assign(
            gts.boxes,
            gts.counts,
            grid.shapes,
            grid.strides,
            padded_shapes,
            topk=self.topk,
            anchor_scale=priors.box_side,
            center_offset=priors.offset,
        )
        return assigned


@dataclass(frozen=True)
class MaxIoU:
    """By the IoU of a prior's box: from ``positive`` on it is the best ground truth's, below ``negative`` background.

    Each ground truth also gets the prior with which its IoU is highest: with ``all_best`` all of equal ones.
    """

    positive: float = 0.5
    negative: float = 0.4
    all_best: bool = True

    def assign(self, grid: Grid, priors: Priors, gts: GroundTruths, padded_shapes: Tensor) -> Tensor:
        return gfl_ops.max_iou_assign(
            priors.boxes,
            gts.boxes,
            gts.counts,
            inside(priors, padded_shapes),
            positive_iou=self.positive,
            negative_iou=self.negative,
            all_best=self.all_best,
        ).assigned_gt


@dataclass(frozen=True)
class FCOSRanges:
    """The smallest of the boxes that a point is inside of and whose longest distance is in its level's range."""

    ranges: tuple[tuple[float, float], ...] = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))
    radius: float | None = 1.5
    """Only points this close to a box's middle, in strides; None for all inside of it."""

    def assign(self, grid: Grid, priors: Priors, gts: GroundTruths, padded_shapes: Tensor) -> Tensor:
        return gfl_ops.fcos_assign(
            gts.boxes,
            gts.counts,
            grid.shapes,
            grid.strides,
            ranges=self.ranges,
            radius=self.radius,
            center_offset=priors.offset,
        ).assigned_gt


@dataclass(frozen=True)
class Fovea:
    """The cells in the middle of a box, on every level for whose sizes it is; the smallest box takes a cell."""

    sigma: float = 0.4
    """What part of a box's sides its middle has."""
    ranges: tuple[tuple[float, float], ...] = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
    """Of the square root of the area, of each level."""

    def assign(self, grid: Grid, priors: Priors, gts: GroundTruths, padded_shapes: Tensor) -> Tensor:
        sides = gts.boxes[..., 2:] - gts.boxes[..., :2]
        real = _real(gts)
        size = sides.prod(2).sqrt()
        levels = [
            self._level(grid.shapes[i], grid.strides[i], self.ranges[i], gts.boxes, size, real)
            for i in range(len(grid.shapes))
        ]
        return torch.cat(levels, 1)

    def _level(
        self,
        shape: tuple[int, int],
        stride: int,
        limits: tuple[float, float],
        boxes: Tensor,
        size: Tensor,
        real: Tensor,
    ) -> Tensor:
        """(B, H * W)"""
        taken = real & (size >= limits[0]) & (size <= limits[1])
        size = torch.where(taken, size, torch.inf)
        corner, half = boxes[..., :2] / stride, (boxes[..., 2:] - boxes[..., :2]) / (2 * stride)
        last = boxes.new_tensor([shape[1] - 1, shape[0] - 1])
        low = (corner + (1 - self.sigma) * half - 0.5).ceil().clamp(min=0).minimum(last)
        high = (corner + (1 + self.sigma) * half - 0.5).floor().clamp(min=0).minimum(last)
        y, x = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) for side in shape)
        smallest = boxes.new_full((len(boxes), *shape), torch.inf)
        owner = torch.full_like(smallest, -1, dtype=torch.int64)
        for begin in range(0, boxes.shape[1], _AT_A_TIME):
            part = slice(begin, begin + _AT_A_TIME)
            columns = (x >= low[:, part, :1]) & (x <= high[:, part, :1])  # (B, G, W)
            lines = (y >= low[:, part, 1:]) & (y <= high[:, part, 1:])
            covered = torch.where(columns[:, :, None] & lines[..., None], size[:, part, None, None], torch.inf)
            best, which = covered.min(1)
            owner = torch.where(best < smallest, which + begin, owner)
            smallest = torch.minimum(smallest, best)
        return owner.flatten(1)


def _real(gts: GroundTruths) -> Tensor:
    """(B, G): which boxes are no padding and have an area."""
    sides = gts.boxes[..., 2:] - gts.boxes[..., :2]
    index = torch.arange(gts.boxes.shape[1], device=gts.boxes.device)
    return (index < gts.counts[:, None]) & (sides > 0).all(2) & sides.isfinite().all(2)


def inside(priors: Priors, padded_shapes: Tensor) -> Tensor:
    """(B, A): whether a prior's cell begins inside of its image, whose sides are rounded up to whole cells."""
    cell = (priors.points / priors.strides).floor().flip(1)  # (A, 2) y, x
    return (cell < (padded_shapes[:, None] / priors.strides).ceil()).all(2)
