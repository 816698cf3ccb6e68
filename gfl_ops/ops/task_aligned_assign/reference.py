"""Task alignment learning's assignment (TOOD, Feng et al. 2021), image by image, all anchors against all gts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _assignment
from .._class_targets import side_by_side
from ..box_iou.reference import box_iou
from ..iou_loss.reference import ciou

# A point on a box's side is not inside; and what keeps a quotient finite. By inside_first: as people run both forms.
INSIDE_MARGIN = {True: 1e-9, False: 0.01}
NORMALIZER_EPS = {True: 1e-9, False: 1e-7}


def task_aligned_assign(
    scores: Tensor | Sequence[Tensor],
    boxes: Tensor,
    points: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None = None,
    *,
    topk: int = 13,
    final_topk: int | None = None,
    alpha: float = 1.0,
    beta: float = 6.0,
    inside_first: bool = True,
    min_side: float = 0.0,
    iou: str = "iou",
    logits: bool = False,
    level_shapes: Sequence[tuple[int, int]] | None = None,
    strides: Sequence[float] | None = None,
    center_offset: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scores = scores if isinstance(scores, Tensor) else side_by_side(scores)
    anchors = boxes.shape[1]
    assigned, labels = ([gt_labels.new_empty(0, anchors, dtype=torch.int64)] for _ in range(2))
    ious, normalized = [boxes.new_empty(0, anchors)], [boxes.new_empty(0, anchors)]
    for image in range(len(boxes)):
        count = None if gt_counts is None else gt_counts[image]
        gts = _assignment.ground_truths(gt_boxes[image], gt_labels[image], count, scores.shape[2])
        overlap = _overlap(boxes[image], gts.boxes, iou)  # (A, G)
        score = _probabilities(_assignment.scores_of(scores[image], gts.labels).to(boxes.dtype), logits)
        metric = torch.where(overlap > 0, score**alpha * overlap**beta, 0.0)
        inside = _assignment.points_inside(points, enlarged(gts.boxes, min_side), INSIDE_MARGIN[inside_first])
        inside = inside & gts.real
        claims = _claims(metric, inside, gts.real, topk, inside_first)
        gt, taken = _settled(claims, overlap, inside if inside_first else claims)
        found = _normalized(gt, taken, metric, overlap, final_topk, NORMALIZER_EPS[inside_first])
        own = torch.cat([gts.labels, gts.labels.new_full((1,), _assignment.BACKGROUND)])[found[0]]  # the last where < 0
        for results, x in zip((assigned, ious, normalized, labels), (*found, own), strict=True):
            results.append(x[None])
    return torch.cat(assigned).int(), torch.cat(ious), torch.cat(normalized), torch.cat(labels).int()


def enlarged(boxes: Tensor, min_side: float) -> Tensor:
    """Sides below min_side become that long, around their middle."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    small = boxes[:, 2:] - boxes[:, :2] < min_side
    return torch.where(small.repeat(1, 2), torch.cat([middle - min_side / 2, middle + min_side / 2], 1), boxes)


def _claims(metric: Tensor, inside: Tensor, real: Tensor, topk: int, inside_first: bool) -> Tensor:
    eligible = (metric > 0) & (inside if inside_first else real)
    best = _assignment.best_of_each(torch.where(eligible, metric, -torch.inf), topk)
    return best & inside


def _settled(claims: Tensor, overlap: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor]:
    if claims.shape[1] == 0:
        return claims.new_zeros(len(claims), dtype=torch.int64), claims.new_zeros(len(claims))
    return _assignment.settle(claims, overlap, rivals)


def _normalized(
    gt: Tensor, taken: Tensor, metric: Tensor, overlap: Tensor, final_topk: int | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """metric / (the gt's best + eps) times the gt's best IoU."""
    if metric.shape[1] == 0:
        nothing = metric.new_zeros(len(metric))
        return torch.full_like(gt, _assignment.BACKGROUND), nothing, nothing
    own = (torch.arange(metric.shape[1], device=gt.device) == gt[:, None]) & taken[:, None]
    if final_topk is not None:
        own &= _assignment.best_of_each(torch.where(own, metric, -torch.inf), final_topk)
        taken = own.any(1)
    most, highest = (torch.where(own, x, 0.0).amax(0) if len(x) else x.sum(0) for x in (metric, overlap))
    metric, overlap = (x.gather(1, gt[:, None])[:, 0] for x in (metric, overlap))
    normalized = metric * highest[gt] / (most[gt] + eps)
    return (
        torch.where(taken, gt, _assignment.BACKGROUND),
        torch.where(taken, overlap, 0.0),
        torch.where(taken, normalized, 0.0),
    )


def _probabilities(scores: Tensor, logits: bool) -> Tensor:
    """Between 0 and 1; NaN counts as 0."""
    if logits:
        scores = scores.double().sigmoid().to(scores.dtype)
    return torch.where(scores > 0, scores, 0.0).clamp(max=1)


def _overlap(boxes: Tensor, gt_boxes: Tensor, kind: str) -> Tensor:
    """(A, G), at least 0; NaN counts as 0."""
    found = box_iou(boxes, gt_boxes) if kind == "iou" else ciou(boxes[:, None], gt_boxes, 1e-7, "add", "always")
    return torch.where(found > 0, found, 0.0)
