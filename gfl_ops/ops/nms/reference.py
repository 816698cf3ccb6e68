"""Greedy non-maximum suppression: the best box stays, those that overlap it too much go; again with what is left."""

from __future__ import annotations

import torch
from torch import Tensor

from .._formulas import widen


def overlap(box: Tensor, others: Tensor, criterion: str = "iou") -> Tensor:
    """IoU or DIoU of one box with many. NaN, which exceeds no threshold, where a box has no area or an infinite one."""
    shared = torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])
    inter = shared.clamp(min=0).prod(-1)
    area = (box[2:] - box[:2]).prod(-1) + (others[:, 2:] - others[:, :2]).prod(-1)
    iou = inter / (area - inter)
    if criterion == "iou":
        return iou
    between = box[:2] + box[2:] - (others[:, :2] + others[:, 2:])
    around = torch.maximum(box[2:], others[:, 2:]) - torch.minimum(box[:2], others[:, :2])
    return iou - between.square().sum(-1) * 0.25 / around.square().sum(-1)


def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, idxs: Tensor | None = None, *, criterion: str = "iou"
) -> Tensor:
    boxes = widen(boxes) if scores.dtype != torch.float64 else boxes.double()
    left = scores.argsort(descending=True, stable=True)
    left = left[~scores[left].isnan()]
    keep = []
    while left.numel():
        best, left = left[0], left[1:]
        keep.append(best)
        suppressed = overlap(boxes[best], boxes[left], criterion) > iou_threshold
        if idxs is not None:
            suppressed &= idxs[left] == idxs[best]
        left = left[~suppressed]
    return torch.stack(keep) if keep else left


def nms_padded(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    idxs: Tensor | None = None,
    *,
    max_output: int,
    criterion: str = "iou",
) -> tuple[Tensor, Tensor]:
    if boxes.is_meta:  # sizes are all there is to know
        return boxes.new_empty(max_output, dtype=torch.int64), boxes.new_empty((), dtype=torch.int64)
    kept = nms(boxes, scores, iou_threshold, idxs, criterion=criterion)[:max_output]
    keep = kept.new_full((max_output,), -1)
    keep[: len(kept)] = kept
    return keep, torch.tensor(len(kept), device=keep.device)
