"""Assignment by the highest IoU (Ren et al. 2015, Liu et al. 2016, Lin et al. 2017), of some gts at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .. import _assignment
from .._assignment import BACKGROUND, OUTSIDE
from ..box_iou.reference import box_iou

GTS_TOGETHER = 64


def max_iou_assign(
    anchors: Tensor,
    gt_boxes: Tensor,
    gt_counts: Tensor | None,
    valid: Tensor | None,
    *,
    positive_iou: float,
    background: tuple[float, float],
    least_iou: float,
    all_best: bool,
) -> tuple[Tensor, Tensor]:
    batch, gts = gt_boxes.shape[:2]
    size = (batch, anchors.shape[-2])
    anchors = anchors.expand(*size, 4)
    valid = torch.ones(size, dtype=torch.bool, device=anchors.device) if valid is None else valid.expand(size)
    counts = torch.full((batch,), gts, device=anchors.device) if gt_counts is None else gt_counts.clamp(max=gts)
    assigned, ious = torch.full(size, OUTSIDE, device=anchors.device), torch.zeros_like(anchors[..., 0])
    for image in range(batch if size[1] else 0):
        real = _assignment.real_boxes(gt_boxes[image], counts[image])
        most, gt, best = _highest(anchors[image], valid[image], gt_boxes[image], real)
        claimed = _claims(anchors[image], valid[image], gt_boxes[image], real, best, least_iou, all_best)
        is_background = (most >= background[0]) & (most < background[1]) | (counts[image] <= 0)
        found = torch.where(is_background, BACKGROUND, OUTSIDE)
        found = torch.where(most >= positive_iou, gt, found).masked_fill(~valid[image], OUTSIDE)
        assigned[image] = torch.where(claimed >= 0, claimed, found)
        ious[image] = torch.where(claimed >= 0, best[claimed], torch.where(found >= 0, most, 0.0))
    return assigned.int(), ious


def _overlaps(anchors: Tensor, valid: Tensor, boxes: Tensor, real: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some gts, and (A, some) IoUs with them: 0 where an anchor or a gt takes no part."""
    for first in range(0, len(boxes), GTS_TOGETHER):
        some = slice(first, first + GTS_TOGETHER)
        overlap = box_iou(anchors, boxes[some])
        yield some, torch.where((overlap > 0) & valid[:, None] & real[some], overlap, 0.0)


def _highest(anchors: Tensor, valid: Tensor, boxes: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(A,) the highest IoU of each anchor, and with which gt, the first of equal ones; (G + 1,) that of each gt, and a
    0."""
    most, gt = torch.zeros_like(anchors[:, 0]), torch.zeros_like(valid, dtype=torch.int64)
    best = boxes.new_zeros(len(boxes) + 1)
    for some, overlap in _overlaps(anchors, valid, boxes, real):
        higher, index = overlap.max(1)
        gt = torch.where(higher > most, index + some.start, gt)
        most = torch.maximum(most, higher)
        best[:-1][some] = overlap.amax(0)
    return most, gt, best


def _claims(
    anchors: Tensor, valid: Tensor, boxes: Tensor, real: Tensor, best: Tensor, least_iou: float, all_best: bool
) -> Tensor:
    """(A,) the last gt that claims an anchor, or -1."""
    claimed = torch.full_like(valid, -1, dtype=torch.int64)
    index = torch.arange(len(boxes), device=boxes.device)
    best = torch.where((best > 0) & (best >= least_iou), best, torch.nan)[:-1]  # NaN equals nothing
    for some, overlap in _overlaps(anchors, valid, boxes, real):
        theirs = overlap == best[some]
        if not all_best:
            theirs &= theirs.cumsum(0) == 1
        claimed = torch.maximum(claimed, torch.where(theirs, index[some], -1).amax(1))
    return claimed
