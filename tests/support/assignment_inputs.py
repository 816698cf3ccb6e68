"""Random scenes for the assigners: a grid of points, predictions around them, ground truths of all kinds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STRIDES = (8, 16, 32)
KINDS = ("usual", "tiny", "duplicates", "outside")


class Scene(NamedTuple):
    scores: Tensor  # (B, A, C) probabilities
    boxes: Tensor  # (B, A, 4)
    points: Tensor  # (A, 2)
    gt_boxes: Tensor  # (B, G, 4)
    gt_labels: Tensor  # (B, G)
    gt_counts: Tensor  # (B,)


def level_shapes(size: int) -> list[tuple[int, int]]:
    return [(-(-size // stride), -(-size // stride)) for stride in STRIDES]


def grid_points(shapes: list[tuple[int, int]], center_offset: float = 0.5) -> Tensor:
    levels = []
    for (height, width), stride in zip(shapes, STRIDES, strict=True):
        y, x = ((torch.arange(cells) + center_offset) * stride for cells in (height, width))
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        levels.append(torch.stack([columns, rows], 2).reshape(-1, 2))
    return torch.cat(levels)


def grid_anchors(size: int) -> Tensor:
    """(A, 4): three shapes of anchors around each cell's corner, so that some have equal IoUs."""
    levels = []
    for (height, width), stride in zip(level_shapes(size), STRIDES, strict=True):
        centers = torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1)[:, None] * stride
        half = torch.tensor([[2.0, 2.0], [1.5, 3.0], [3.0, 1.5]]) * stride
        levels.append(torch.cat([centers - half, centers + half], 2).reshape(-1, 4))
    return torch.cat(levels)


def point_strides(shapes: list[tuple[int, int]]) -> Tensor:
    return torch.cat(
        [torch.full((height * width,), float(s)) for (height, width), s in zip(shapes, STRIDES, strict=True)]
    )


def random_gts(generator: torch.Generator, batch: int, gts: int, size: int, kind: str) -> Tensor:
    sides = torch.rand(batch, gts, 2, generator=generator) ** 2 * size / 2 + 1
    middle = torch.rand(batch, gts, 2, generator=generator) * size
    if kind == "tiny":
        sides = sides / size * 20
    if kind == "outside":
        middle = middle * 3 - size
    if kind == "duplicates":
        sides[:, gts // 2 :], middle[:, gts // 2 :] = sides[:, : gts - gts // 2], middle[:, : gts - gts // 2]
    return torch.cat([middle - sides / 2, middle + sides / 2], 2)


def random_scene(
    seed: int,
    gts: int,
    kind: str = "usual",
    *,
    batch: int = 2,
    size: int = 160,
    classes: int = 5,
    dtype: torch.dtype = torch.float32,
) -> Scene:
    """Every second anchor inside of a ground truth predicts it, up to noise; the others something near themselves."""
    generator = torch.Generator().manual_seed(seed)
    points = grid_points(level_shapes(size))
    anchors = len(points)
    gt_boxes = random_gts(generator, batch, gts, size, kind)
    away = torch.rand(batch, anchors, 4, generator=generator) * 40 + 2
    boxes = torch.cat([points - away[..., :2], points + away[..., 2:]], 2)
    if gts:
        pick = torch.randint(gts, (batch, anchors), generator=generator)
        near = gt_boxes.gather(1, pick[..., None].expand(-1, -1, 4)) + torch.randn(
            batch, anchors, 4, generator=generator
        )
        inside = ((points > near[..., :2]) & (points < near[..., 2:])).all(-1, keepdim=True)
        boxes = torch.where(inside & (torch.rand(batch, anchors, 1, generator=generator) < 0.5), near, boxes)
    return Scene(
        torch.rand(batch, anchors, classes, generator=generator).to(dtype),
        boxes.to(dtype),
        points.to(dtype),
        gt_boxes.to(dtype),
        torch.randint(classes, (batch, gts), generator=generator),
        torch.randint(gts // 2, gts + 1, (batch,), generator=generator),
    )
