"""Task-aligned assignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from .. import _assignment_arguments as _arguments
from . import native, reference

_OP = "task_aligned_assign"


class TaskAlignedAssignment(NamedTuple):
    """Of each anchor of each image; all are (B, A)."""

    assigned_gt: Tensor
    """int32: the index of a ground truth, or -1 for background."""
    assigned_iou: Tensor
    """The IoU of the anchor's box with its ground truth, 0 for background."""
    assigned_score: Tensor
    """The target of the anchor's score for the class of its ground truth, 0 for background."""
    assigned_label: Tensor
    """int32: the class of the ground truth, -1 for background."""


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
) -> TaskAlignedAssignment:
    """Assigns ground truths to the anchors that predict them best: the assignment of TOOD
    (https://arxiv.org/abs/2108.07755), YOLOv8 and its successors, and PP-YOLOE.

    The metric of an anchor and a ground truth is s^alpha * u^beta: s is the anchor's score for the class of the ground
    truth, u the IoU of the anchor's predicted box with it. A ground truth claims the topk anchors with the highest
    metric among those whose point is inside its box, as far as the metric is above 0. If several claim an anchor, it
    goes to the one with the highest IoU of all ground truths that the anchor is inside of, whether they claim it or
    not. The target score of an anchor is its metric, divided by the highest metric and multiplied with the highest IoU
    among the anchors of its ground truth.

    Where two metrics are equal, the anchor of the lower index counts as better; where two IoUs are, the first ground
    truth. A box with NaN or infinite sides or without area, one past ``gt_counts``, or one whose label is not a class
    claims nothing.

    No matrix of ground truths and anchors is built, and no other score than that of a ground truth's class is read.
    If ``level_shapes`` and ``strides`` say that the points are a grid, only the cells that a box covers are looked at.
    Computes in float32, or in float64 if ``boxes`` is float64. There is no gradient.

    =========== ============================================================================================
    YOLOv8, 11  ``topk=10, alpha=0.5, iou="ciou", min_side=16`` (the stride of the second level), pixels
    YOLO26      the same; its one-to-one head ``topk=7, final_topk=1``
    TOOD        ``inside_first=False``
    =========== ============================================================================================

    Args:
        scores: (B, A, C) probabilities of the classes, or logits. Any strides will do. What is below 0 or NaN counts as
            0, what is above 1 as 1. A list is the maps (B, C, H, W) of all levels as a head leaves them, whose shapes
            are the ``level_shapes``.
        boxes: (B, A, 4) predicted boxes, xyxy in pixels.
        points: (A, 2) x and y of the anchors, in pixels.
        gt_boxes: (B, G, 4) xyxy in pixels, padded to the same G.
        gt_labels: (B, G) integers.
        gt_counts: (B,) integers: how many of the G boxes of each image are real. Default: all.
        topk: how many anchors a ground truth claims, 1 to 256.
        final_topk: how many of the anchors that a ground truth has got it keeps, those with the highest metric, 1 to
            256. Default: all.
        alpha: the exponent of the score.
        beta: the exponent of the IoU.
        inside_first: False is the form of mmdet: the topk anchors are chosen from all, those of them outside of the
            box (or less than 0.01 pixels inside) are left out, and an anchor that several claim goes to the highest IoU
            of those that claim it.
        min_side: shorter sides of a ground truth count as this long when the points inside are sought.
        iou: "iou", or "ciou" (https://arxiv.org/abs/1911.08287, the shape term without a condition). What is below 0
            counts as 0.
        logits: the scores are logits.
        level_shapes: (height, width) of each level, at most 8, if the points are the centres of their cells, level
            after level and row after row.
        strides: pixels per cell of each level.
        center_offset: where the centre of a cell lies in it: 0 is the corner, 0.5 the middle.

    Returns:
        ``(assigned_gt, assigned_iou, assigned_score, assigned_label)``.

    Example:
        >>> points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]])
        >>> boxes = torch.tensor([[[0.0, 0.0, 16.0, 8.0], [0.0, 0.0, 14.0, 8.0], [16.0, 0.0, 24.0, 8.0]]])
        >>> scores = torch.full((1, 3, 2), 0.5)
        >>> gt = torch.tensor([[[0.0, 0.0, 16.0, 8.0]]])
        >>> task_aligned_assign(scores, boxes, points, gt, torch.tensor([[1]])).assigned_gt
        tensor([[ 0,  0, -1]], dtype=torch.int32)
    """
    boxes, points, gt_boxes = _arguments.predictions(_OP, scores, "scores", boxes, points, gt_boxes)
    _arguments.ground_truths(_OP, gt_boxes, gt_labels, gt_counts)
    if isinstance(scores, (list, tuple)):
        level_shapes = _shapes_of(scores, level_shapes)
    _arguments.grid(_OP, level_shapes, strides, len(points))
    _arguments.best(_OP, "topk", topk)
    if final_topk is not None:
        _arguments.best(_OP, "final_topk", final_topk)
    for name, value in (("alpha", alpha), ("beta", beta), ("min_side", min_side)):
        _check.number(_OP, name, value, 0.0, 1e6)
    _check.number(_OP, "center_offset", center_offset, -1e6, 1e6)
    _check.choice(_OP, "iou", iou, ("iou", "ciou"))
    for name, value in (("inside_first", inside_first), ("logits", logits)):
        _check.flag(_OP, name, value)

    options: dict[str, Any] = {
        "topk": topk,
        "final_topk": final_topk,
        "alpha": alpha,
        "beta": beta,
        "inside_first": inside_first,
        "min_side": min_side,
        "iou": iou,
        "logits": logits,
        "level_shapes": level_shapes,
        "strides": strides,
        "center_offset": center_offset,
    }
    assign = kernels_for(_OP, boxes, native) or reference
    detached = scores.detach() if isinstance(scores, Tensor) else [x.detach() for x in scores]
    found = assign.task_aligned_assign(detached, boxes, points, gt_boxes, gt_labels, gt_counts, **options)
    return TaskAlignedAssignment(*found)


def _shapes_of(maps: Sequence[Tensor], level_shapes: Any) -> list[tuple[int, int]]:
    shapes = [(x.shape[2], x.shape[3]) for x in maps]
    if level_shapes is not None and [tuple(shape) for shape in level_shapes] != shapes:
        raise ValueError(f"{_OP}: level_shapes must be those of scores, {shapes}, got {list(level_shapes)}")
    return shapes
