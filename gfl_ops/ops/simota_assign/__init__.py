"""SimOTA."""

from __future__ import annotations

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from .. import _assignment_arguments as _arguments
from .._cost_assignment import CostAssignment
from . import native, reference

_OP = "simota_assign"


def simota_assign(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None = None,
    *,
    topk: int = 10,
    center_radius: float = 2.5,
    cls_weight: float = 1.0,
    iou_weight: float = 3.0,
) -> CostAssignment:
    """Assigns ground truths to the anchors that cost least: the assignment of YOLOX
    (https://arxiv.org/abs/2107.08430) and NanoDet-Plus, mmdet's SimOTAAssigner.

    Candidates are the anchors whose point is inside of any ground truth's box, or closer than center_radius strides to
    its centre along both axes. The cost of a candidate and a ground truth, near or far, is the sum of

    - the cross entropy of the scores with the class of the ground truth, over all classes, its logarithms clamped at
      -100, times cls_weight;
    - -log(IoU + 1e-7) * iou_weight, with the IoU of the anchor's box and the ground truth's;
    - 100,000 unless the point is both inside of the box and that close to its centre.

    A ground truth claims the k candidates with the lowest cost. k is the sum of its topk highest IoUs with candidates,
    rounded down, but at least 1. An anchor that several claim goes to the ground truth with the lowest cost of all,
    whether it claims the anchor or not.

    Where two costs are equal, the anchor of the lower index counts as better; where two ground truths cost an anchor
    the same, the first. A box with NaN or infinite sides or without area, one past ``gt_counts``, or one whose label is
    not a class claims nothing. An anchor with NaN or infinity in its box, or a stride that is not above 0, is no
    candidate.

    No matrix of ground truths and anchors is built. Computes in float32, or in float64 if ``boxes`` is float64. There
    is no gradient.

    Args:
        scores: (B, A, C) probabilities of the classes; in YOLOX times the probability of an object. Any strides will
            do. What is below 0 or NaN counts as 0, what is above 1 as 1.
        boxes: (B, A, 4) predicted boxes, xyxy in pixels.
        points: (A, 2) x and y of the anchors, in pixels.
        strides: (A,) pixels per cell of each anchor's level.
        gt_boxes: (B, G, 4) xyxy in pixels, padded to the same G.
        gt_labels: (B, G) integers.
        gt_counts: (B,) integers: how many of the G boxes of each image are real. Default: all.
        topk: of how many IoUs k is the sum, 1 to 256.
        center_radius: in strides.
        cls_weight: at least 0.
        iou_weight: at least 0.

    Returns:
        ``(assigned_gt, assigned_iou)``

    Example:
        >>> points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]])
        >>> boxes = torch.tensor([[[0.0, 0.0, 16.0, 8.0], [0.0, 0.0, 14.0, 8.0], [16.0, 0.0, 24.0, 8.0]]])
        >>> gt = torch.tensor([[[0.0, 0.0, 16.0, 8.0]]])
        >>> found = simota_assign(
        ...     torch.full((1, 3, 2), 0.5), boxes, points, torch.full((3,), 8.0), gt, torch.tensor([[1]])
        ... )
        >>> found.assigned_gt, found.assigned_iou
        (tensor([[ 0, -1, -1]], dtype=torch.int32), tensor([[1., 0., 0.]]))
    """
    boxes, points, gt_boxes = _arguments.predictions(_OP, scores, "scores", boxes, points, gt_boxes)
    strides = _arguments.point_strides(_OP, strides, points)
    _arguments.ground_truths(_OP, gt_boxes, gt_labels, gt_counts)
    _arguments.best(_OP, "topk", topk)
    _check.number(_OP, "center_radius", center_radius, 0.0, 1e6)
    _check.number(_OP, "cls_weight", cls_weight, 0.0, 1e6)
    _check.number(_OP, "iou_weight", iou_weight, 0.0, 1e6)

    assign = kernels_for(_OP, boxes, native) or reference
    found = assign.simota_assign(
        scores.detach(),
        *(boxes, points, strides),
        *(gt_boxes, gt_labels, gt_counts),
        topk=topk,
        center_radius=center_radius,
        cls_weight=cls_weight,
        iou_weight=iou_weight,
    )
    return CostAssignment(*found)
