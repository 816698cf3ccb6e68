"""The checks that the assigners share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import _check
from .._arguments import compute_dtype

MOST_TOPK = 256  # kMostTopk in csrc/math/assignment.h


def predictions(
    op: str, scores: Any, scores_name: str, boxes: Any, points: Any, gt_boxes: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """boxes, points and gt_boxes in the compute type, without gradient: an assignment in half precision would be
    another one."""
    batch, anchors, scores = _size_of(op, scores_name, scores)
    _check.floating(op, "boxes", boxes)
    _check.shape(op, "boxes", boxes, (batch, anchors, 4), "(B, A, 4)")
    _check.floating(op, "points", points)
    _check.shape(op, "points", points, (anchors, 2), "(A, 2)")
    gt_list(op, gt_boxes, batch)
    for name, value in ((scores_name, scores), ("points", points), ("gt_boxes", gt_boxes)):
        _check.on_device_of(op, name, value, "boxes", boxes)
    dtype = compute_dtype(boxes)
    return boxes.detach().to(dtype), points.detach().to(dtype), gt_boxes.detach().to(dtype)


def point_strides(op: str, strides: Any, points: Tensor) -> Tensor:
    _check.floating(op, "strides", strides)
    _check.shape(op, "strides", strides, (len(points),), "(A,)")
    _check.on_device_of(op, "strides", strides, "boxes", points)
    return strides.detach().to(points.dtype)


def _size_of(op: str, name: str, scores: Any) -> tuple[int, int, Tensor]:
    """(B, A, a tensor) of scores (B, A, C), or of the maps (B, C, H, W) of all levels."""
    if not isinstance(scores, (list, tuple)):
        _check.floating(op, name, scores)
        if scores.ndim != 3:
            raise ValueError(f"{op}: {name} must be (B, A, C), got {tuple(scores.shape)}")
        return scores.shape[0], scores.shape[1], scores
    _check.levels(op, name, scores)
    for i, x in enumerate(scores):
        _check.floating(op, f"{name}[{i}]", x)
        if x.ndim != 4:
            raise ValueError(f"{op}: {name}[{i}] must be (B, C, H, W), got {tuple(x.shape)}")
        _check.map_like(op, f"{name}[{i}]", x, scores[0], (*scores[0].shape[:2], *x.shape[2:]), "(B, C, H, W)")
    return scores[0].shape[0], sum(x.shape[2] * x.shape[3] for x in scores), scores[0]


def gt_list(op: str, gt_boxes: Any, batch: int | None) -> None:
    """Of any number of images where `batch` is None."""
    _check.floating(op, "gt_boxes", gt_boxes)
    if gt_boxes.ndim != 3 or (batch is not None and gt_boxes.shape[0] != batch) or gt_boxes.shape[2] != 4:
        wanted = "(B, G, 4)" if batch is None else f"(B, G, 4) with B = {batch}"
        raise ValueError(f"{op}: gt_boxes must be {wanted}, got {tuple(gt_boxes.shape)}")


def ground_truths(op: str, gt_boxes: Tensor, gt_labels: Any, gt_counts: Any) -> None:
    _check.labels(op, "gt_labels", gt_labels, gt_boxes, gt_boxes.shape[:2], "(B, G)")
    counts(op, gt_boxes, gt_counts)


def counts(op: str, gt_boxes: Tensor, gt_counts: Any) -> None:
    if gt_counts is not None:
        _check.labels(op, "gt_counts", gt_counts, gt_boxes, gt_boxes.shape[:1], "(B,)")


def best(op: str, name: str, topk: Any) -> None:
    _check.whole(op, name, topk, 1)
    if topk > MOST_TOPK:
        raise ValueError(f"{op}: {name} must be at most {MOST_TOPK}, got {topk}")


def levels(op: str, level_shapes: Any, strides: Any) -> None:
    _check.sequence(op, "level_shapes", level_shapes, "of (height, width) pairs")
    if not 1 <= len(level_shapes) <= _check.MOST_LEVELS:
        raise ValueError(f"{op}: level_shapes must have 1 to {_check.MOST_LEVELS} levels, got {len(level_shapes)}")
    for shape in level_shapes:
        _check.sequence(op, "level_shapes", shape, "of (height, width) pairs")
        if len(shape) != 2:
            raise ValueError(f"{op}: level_shapes must be (height, width) pairs, got {tuple(shape)}")
        for cells in shape:
            _check.whole(op, "level_shapes", cells, 0)
    _check.strides(op, strides, len(level_shapes))


def grid(op: str, level_shapes: Any, strides: Any, anchors: int) -> None:
    """Of points that may be the cells' centres."""
    if (level_shapes is None) != (strides is None):
        missing = "strides" if strides is None else "level_shapes"
        raise ValueError(f"{op}: level_shapes and strides come together, but {missing} is None")
    if level_shapes is None:
        return
    levels(op, level_shapes, strides)
    cells = sum(height * width for height, width in level_shapes)
    if cells != anchors:
        raise ValueError(f"{op}: level_shapes must have as many cells as there are points, {anchors}, got {cells}")
