"""Priors: the points or boxes that a head's predictions start from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .parts import Grid, Priors


class PriorsConfig(Protocol):
    @property
    def inclusive(self) -> bool: ...

    def per_cell(self, level: int) -> int: ...

    def of(self, grid: Grid) -> Priors: ...


@dataclass(frozen=True)
class Points:
    """One point a cell, with a square box around it."""

    offset: float = 0.0
    """Where in its cell a point lies: 0 is the corner, 0.5 the middle."""
    box_side: float = 8.0
    """In strides."""
    inclusive: bool = False
    """The geometry of mmdet 1.x: boxes end on their last pixel, and points lie on pixels, half a pixel further back."""

    def per_cell(self, level: int) -> int:
        return 1

    def of(self, grid: Grid) -> Priors:
        points, strides = _points(grid, self.offset)
        half = strides * (self.box_side / 2)
        boxes = torch.cat([points - half, points + half], 1)
        points = points - 0.5 if self.inclusive else points
        return Priors(points, strides, boxes, self.offset, self.box_side)


@dataclass(frozen=True)
class Anchors:
    """Boxes around a cell's corner, in every combination of a shape and a size."""

    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    scales: tuple[float, ...] = (4.0, 4.0 * 2 ** (1 / 3), 4.0 * 2 ** (2 / 3))
    """The side of a square with the same area, in strides."""

    inclusive = False

    def per_cell(self, level: int) -> int:
        return len(self.ratios) * len(self.scales)

    def of(self, grid: Grid) -> Priors:
        tall, wide = _factors(self.ratios)
        scales = torch.tensor(self.scales)
        sizes = [
            torch.stack([(stride * side[:, None] * scales).flatten() for side in (wide, tall)], 1)
            for stride in grid.strides
        ]
        return _boxes_around(grid, 0.0, sizes)


@dataclass(frozen=True)
class SSDAnchors:
    """Boxes around a cell's middle whose sizes are given in pixels, for images of one size."""

    sizes: tuple[float, ...] = (20, 51, 133, 215, 296, 378, 460, 542)
    """The smallest side of each level, and where the last level's end."""
    ratios: tuple[tuple[float, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,))
    """Width over height of each level's boxes beside the two squares; each also lying down."""

    inclusive = False

    def per_cell(self, level: int) -> int:
        return 2 + 2 * len(self.ratios[level])

    def of(self, grid: Grid) -> Priors:
        return _boxes_around(grid, 0.5, [self._sizes(level) for level in range(len(grid.strides))])

    def _sizes(self, level: int) -> Tensor:
        small, next_one = self.sizes[level], self.sizes[level + 1]
        tall, wide = _factors([1.0, *(height for ratio in self.ratios[level] for height in (1 / ratio, ratio))])
        between = small * torch.tensor(math.sqrt(next_one / small))
        shaped = torch.stack([small * wide, small * tall], 1)
        return torch.cat([shaped[:1], between.expand(1, 2), shaped[1:]])


def _factors(ratios: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Of height and width, for each height over width. In float32 from the start, as others have it: which of two
    priors overlaps a box more depends on how they were rounded."""
    tall = torch.tensor(ratios, dtype=torch.float32).sqrt()
    return tall, 1 / tall


def _points(grid: Grid, offset: float) -> tuple[Tensor, Tensor]:
    """(A, 2) one of each cell, and (A, 1) their strides."""
    points, strides = [], []
    for (height, width), stride in zip(grid.shapes, grid.strides, strict=True):
        y = (torch.arange(height, device=grid.device, dtype=torch.float32) + offset) * stride
        x = (torch.arange(width, device=grid.device, dtype=torch.float32) + offset) * stride
        rows_of, columns_of = torch.meshgrid(y, x, indexing="ij")
        level = torch.stack([columns_of, rows_of], 2).flatten(0, 1)
        points.append(level)
        strides.append(torch.full_like(level[:, :1], stride))
    return torch.cat(points), torch.cat(strides)


def _boxes_around(grid: Grid, offset: float, sizes: Sequence[Tensor]) -> Priors:
    """Of each level the boxes of these widths and heights around every cell's point: those of the first cell, moved."""
    points, strides, boxes = [], [], []
    for shape, stride, level in zip(grid.shapes, grid.strides, sizes, strict=True):
        corner, pixels = _points(Grid([shape], (stride,), grid.device), 0.0)
        half = level.to(grid.device) * 0.5
        first = torch.cat([offset * stride - half, offset * stride + half], 1)
        points.append((corner + offset * stride).repeat_interleave(len(level), 0))
        strides.append(pixels.repeat_interleave(len(level), 0))
        boxes.append((corner.repeat(1, 2)[:, None] + first).flatten(0, 1))
    return Priors(torch.cat(points), torch.cat(strides), torch.cat(boxes))
