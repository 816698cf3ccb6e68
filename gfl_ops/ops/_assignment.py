"""What the assigners share in plain PyTorch: which ground truths take part, what lies inside, the best of each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BACKGROUND, OUTSIDE = -1, -2


class GroundTruths(NamedTuple):
    """Of one image, padding included."""

    boxes: Tensor  # (G, 4)
    labels: Tensor  # (G,), 0 where they are out of range
    real: Tensor  # (G,) whether one takes part


def ground_truths(boxes: Tensor, labels: Tensor, count: Tensor | None, classes: int) -> GroundTruths:
    """A box takes part if it is one of the first `count`, its sides are finite and above 0, its label is a class."""
    real = real_boxes(boxes, count) & (labels >= 0) & (labels < classes)
    return GroundTruths(boxes, labels.long().clamp(0, max(classes - 1, 0)), real)


def real_boxes(boxes: Tensor, count: Tensor | None) -> Tensor:
    """(G,): whether a box is one of the first `count`, and its sides are finite and above 0."""
    sides = boxes[:, 2:] - boxes[:, :2]
    real = ((sides > 0) & sides.isfinite()).all(1)
    return real if count is None else real & (torch.arange(len(boxes), device=boxes.device) < count)


def scores_of(scores: Tensor, labels: Tensor) -> Tensor:
    """(A, G): each anchor's score for the class of each gt. Where there is no class, no gt takes part."""
    return scores[:, labels] if scores.shape[1] else scores.new_zeros(len(scores), len(labels))


def points_inside(points: Tensor, boxes: Tensor, margin: float) -> Tensor:
    """(A, G): whether a point lies more than `margin` inside of a box."""
    to_sides = torch.cat([points[:, None] - boxes[:, :2], boxes[:, 2:] - points[:, None]], 2)
    return to_sides.amin(2) > margin


def best_of_each(value: Tensor, topk: int) -> Tensor:
    """(A, G): whether an anchor has one of the topk highest values of a gt above -infinity; the lower index where two
    tie."""
    index = value.argsort(dim=0, descending=True, stable=True)[:topk]
    return torch.zeros_like(value, dtype=torch.bool).scatter(0, index, True) & (value > -torch.inf)


def settle(claimed: Tensor, right: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor]:
    """(A,) the gt of each anchor, and whether it has one. An anchor that one gt claims is its own. One that several
    claim goes to the highest right among its rivals, the first of equal ones."""
    rivals = torch.where(claimed.sum(1, keepdim=True) > 1, rivals, claimed)
    gt = right.masked_fill(~rivals, -torch.inf).argmax(1)
    return gt, claimed.any(1)
