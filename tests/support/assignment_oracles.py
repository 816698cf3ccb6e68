"""The assigners' rules, one pair of a ground truth and an anchor at a time, in Python's numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

BACKGROUND, OUTSIDE = -1, -2


class Box(NamedTuple):
    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def sides(self) -> tuple[float, float]:
        return self.x2 - self.x1, self.y2 - self.y1

    def holds(self, point: tuple[float, float], margin: float) -> bool:
        x, y = point
        return min(x - self.x1, y - self.y1, self.x2 - x, self.y2 - y) > margin


def boxes_of(rows: Tensor) -> list[Box]:
    return [Box(*row) for row in rows.tolist()]


def takes_part(box: Box, label: int, classes: int) -> bool:
    return all(0 < side < math.inf for side in box.sides) and 0 <= label < classes


def shared_area(a: Box, b: Box) -> float:
    return max(min(a.x2, b.x2) - max(a.x1, b.x1), 0.0) * max(min(a.y2, b.y2) - max(a.y1, b.y1), 0.0)


def plain_iou(a: Box, b: Box) -> float:
    shared = shared_area(a, b)
    return shared / max(math.prod(a.sides) + math.prod(b.sides) - shared, 1e-6)


def complete_iou(a: Box, b: Box) -> float:
    shared = shared_area(a, b)
    iou = shared / (math.prod(a.sides) + math.prod(b.sides) - shared + 1e-7)
    hull = max(a.x2, b.x2) - min(a.x1, b.x1), max(a.y2, b.y2) - min(a.y1, b.y1)
    apart = ((a.x1 + a.x2 - b.x1 - b.x2) / 2) ** 2 + ((a.y1 + a.y2 - b.y1 - b.y2) / 2) ** 2
    angles = [math.atan(width / (height + 1e-7)) for width, height in (a.sides, b.sides)]
    shape = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    return iou - apart / (hull[0] ** 2 + hull[1] ** 2 + 1e-7) - shape * shape / (1 - iou + shape + 1e-7)


def widened(box: Box, least: float) -> Box:
    low_high = []
    for low, high in ((box.x1, box.x2), (box.y1, box.y2)):
        if high - low < least:
            low, high = (low + high) / 2 - least / 2, (low + high) / 2 + least / 2
        low_high.append((low, high))
    (x1, x2), (y1, y2) = low_high
    return Box(x1, y1, x2, y2)


def task_aligned_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    *,
    topk: int,
    final_topk: int | None = None,
    alpha: float = 1.0,
    beta: float = 6.0,
    inside_first: bool = True,
    min_side: float = 0.0,
    iou: str = "iou",
) -> tuple[list[int], list[float], list[float]]:
    """Of one image, without padding: the gt, the IoU and the normalised score of each anchor."""
    margin, eps = (1e-9, 1e-9) if inside_first else (0.01, 1e-7)
    predicted, truths, places = boxes_of(boxes), boxes_of(gt_boxes), [tuple(point) for point in points.tolist()]
    overlap_of = plain_iou if iou == "iou" else complete_iou
    labels = gt_labels.tolist()
    real = [gt for gt, box in enumerate(truths) if takes_part(box, labels[gt], scores.shape[1])]

    def overlap(gt: int, anchor: int) -> float:
        return max(overlap_of(predicted[anchor], truths[gt]), 0.0)

    def metric(gt: int, anchor: int) -> float:
        u = overlap(gt, anchor)
        return scores[anchor, labels[gt]].item() ** alpha * u**beta if u > 0 else 0.0

    def holds(gt: int, anchor: int) -> bool:
        return widened(truths[gt], min_side).holds(places[anchor], margin)

    claims: dict[int, list[int]] = {}
    for gt in real:
        anchors = [a for a in range(len(predicted)) if metric(gt, a) > 0 and (not inside_first or holds(gt, a))]
        best = sorted(anchors, key=lambda a: (-metric(gt, a), a))[:topk]
        for anchor in best:
            if holds(gt, anchor):
                claims.setdefault(anchor, []).append(gt)

    won: dict[int, list[int]] = {gt: [] for gt in real}
    for anchor, claimants in claims.items():
        rivals = claimants
        if len(claimants) > 1 and inside_first:
            rivals = [gt for gt in real if holds(gt, anchor)]
        won[max(rivals, key=lambda gt: (overlap(gt, anchor), -gt))].append(anchor)

    assigned, ious, normalized = [BACKGROUND] * len(predicted), [0.0] * len(predicted), [0.0] * len(predicted)
    for gt, anchors in won.items():
        kept = sorted(anchors, key=lambda a: (-metric(gt, a), a))[:final_topk]
        for anchor in kept:
            assigned[anchor] = gt
            ious[anchor] = overlap(gt, anchor)
            best_metric, best_iou = max(metric(gt, a) for a in kept), max(overlap(gt, a) for a in kept)
            normalized[anchor] = metric(gt, anchor) / (best_metric + eps) * best_iou
    return assigned, ious, normalized


def max_iou_assign(
    anchors: Tensor,
    gt_boxes: Tensor,
    valid: Tensor,
    *,
    positive_iou: float = 0.5,
    negative_iou: float | tuple[float, float] = 0.4,
    least_iou: float | None = 0.0,
    all_best: bool = True,
) -> tuple[list[int], list[float]]:
    """Of one image, without padding: the gt and the IoU of each anchor."""
    low, high = negative_iou if isinstance(negative_iou, tuple) else (0.0, negative_iou)
    truths = boxes_of(gt_boxes)
    taking_part = [a for a, part in enumerate(valid.tolist()) if part]
    priors = boxes_of(anchors)
    overlap = {
        (gt, a): plain_iou(priors[a], box) if takes_part(box, 0, 1) else 0.0
        for gt, box in enumerate(truths)
        for a in taking_part
    }
    assigned, ious = [OUTSIDE] * len(priors), [0.0] * len(priors)
    for a in taking_part:
        gt = max(range(len(truths)), key=lambda gt: (overlap[gt, a], -gt), default=None)
        most = 0.0 if gt is None else overlap[gt, a]
        if gt is not None and most >= positive_iou:
            assigned[a] = gt
        elif low <= most < high or gt is None:
            assigned[a] = BACKGROUND
    for gt in range(len(truths)):
        best = max((overlap[gt, a] for a in taking_part), default=0.0)
        if best > 0 and least_iou is not None and best >= least_iou:
            for a in [a for a in taking_part if overlap[gt, a] == best][: None if all_best else 1]:
                assigned[a] = gt
    for a in taking_part:
        if assigned[a] >= 0:
            ious[a] = overlap[assigned[a], a]
    return assigned, ious


# ---- the lowest costs --------------------------------------------------------------------------------------

Costs = dict[tuple[int, int], float]  # of gt and anchor


def lowest_costs(
    predicted: list[Box], truths: list[Box], real: list[int], candidates: list[int], cost: Costs, topk: int
) -> tuple[list[int], list[float]]:
    claims: dict[int, list[int]] = {}
    for gt in real:
        ious = sorted((plain_iou(predicted[a], truths[gt]) for a in candidates), reverse=True)[:topk]
        wanted = max(int(sum(ious)), 1)
        for anchor in sorted(candidates, key=lambda a, gt=gt: (cost[gt, a], a))[:wanted]:
            claims.setdefault(anchor, []).append(gt)
    assigned, found = [BACKGROUND] * len(predicted), [0.0] * len(predicted)
    for anchor, claimants in claims.items():
        rivals = real if len(claimants) > 1 else claimants
        assigned[anchor] = min(rivals, key=lambda gt, anchor=anchor: (cost[gt, anchor], gt))
        found[anchor] = plain_iou(predicted[anchor], truths[assigned[anchor]])
    return assigned, found


def center(box: Box) -> tuple[float, float]:
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def dynamic_soft_label_assign(
    logits: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    *,
    topk: int = 13,
    center_radius: float = 3.0,
    iou_weight: float = 3.0,
) -> tuple[list[int], list[float]]:
    """Of one image, without padding."""
    predicted, truths, places = boxes_of(boxes), boxes_of(gt_boxes), [tuple(point) for point in points.tolist()]
    labels, sides, rows = gt_labels.tolist(), strides.tolist(), logits.tolist()
    real = [gt for gt, box in enumerate(truths) if takes_part(box, labels[gt], logits.shape[1])]
    candidates = [a for a, place in enumerate(places) if any(truths[gt].holds(place, 0.0) for gt in real)]

    def cost(gt: int, anchor: int) -> float:
        iou = plain_iou(predicted[anchor], truths[gt])
        total = -math.log(iou + 1e-7) * iou_weight
        for label, x in enumerate(rows[anchor]):
            target, p = iou if label == labels[gt] else 0.0, 1 / (1 + math.exp(-x))
            total += (math.log1p(math.exp(x)) - x * target) * (target - p) ** 2
        return total + 10 ** (math.dist(places[anchor], center(truths[gt])) / sides[anchor] - center_radius)

    costs = {(gt, a): cost(gt, a) for gt in real for a in candidates}
    return lowest_costs(predicted, truths, real, candidates, costs, topk)


def simota_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    *,
    topk: int = 10,
    center_radius: float = 2.5,
    cls_weight: float = 1.0,
    iou_weight: float = 3.0,
) -> tuple[list[int], list[float]]:
    """Of one image, without padding."""
    predicted, truths, places = boxes_of(boxes), boxes_of(gt_boxes), [tuple(point) for point in points.tolist()]
    labels, sides, rows = gt_labels.tolist(), strides.tolist(), scores.tolist()
    real = [gt for gt, box in enumerate(truths) if takes_part(box, labels[gt], scores.shape[1])]

    def near(gt: int, anchor: int) -> bool:
        (x, y), reach = center(truths[gt]), center_radius * sides[anchor]
        return Box(x - reach, y - reach, x + reach, y + reach).holds(places[anchor], 0.0)

    def least_log(p: float) -> float:
        return max(math.log(p), -100.0) if p > 0 else -100.0

    def cost(gt: int, anchor: int) -> float:
        classes = -sum(least_log(p if label == labels[gt] else 1 - p) for label, p in enumerate(rows[anchor]))
        iou = -math.log(plain_iou(predicted[anchor], truths[gt]) + 1e-7)
        good = truths[gt].holds(places[anchor], 0.0) and near(gt, anchor)
        return classes * cls_weight + iou * iou_weight + (0.0 if good else 1e5)

    reachable = [[truths[gt].holds(places[a], 0.0) or near(gt, a) for gt in real] for a in range(len(places))]
    candidates = [a for a, of_gts in enumerate(reachable) if any(of_gts)]
    costs = {(gt, a): cost(gt, a) for gt in real for a in candidates}
    return lowest_costs(predicted, truths, real, candidates, costs, topk)


def fcos_assign(
    points: Tensor, of_cell: list[tuple[float, tuple[float, float]]], gt_boxes: Tensor, *, radius: float | None = 1.5
) -> tuple[list[int], list[list[float]], list[float]]:
    """Of one image, without padding: the gt, the distances and the centerness of each cell, of which the stride and the
    range are given."""
    truths = boxes_of(gt_boxes)
    assigned, distances, centerness = [], [], []
    for (x, y), (stride, (low, high)) in zip(points.tolist(), of_cell, strict=True):
        may = []
        for gt, box in enumerate(truths):
            half = radius * stride if radius else math.inf
            near = max(abs(x - (box.x1 + box.x2) / 2), abs(y - (box.y1 + box.y2) / 2)) < half
            longest = max(x - box.x1, y - box.y1, box.x2 - x, box.y2 - y)
            if takes_part(box, 0, 1) and box.holds((x, y), 0.0) and near and low <= longest <= high:
                may.append((math.prod(box.sides), gt))
        assigned.append(min(may)[1] if may else BACKGROUND)
        box = truths[assigned[-1]] if may else Box(x, y, x, y)
        left, top, right, bottom = x - box.x1, y - box.y1, box.x2 - x, box.y2 - y
        distances.append([left, top, right, bottom])
        quotients = [min(pair) / max(pair) if may else 0.0 for pair in ((left, right), (top, bottom))]
        centerness.append(math.sqrt(math.prod(quotients)))
    return assigned, distances, centerness
