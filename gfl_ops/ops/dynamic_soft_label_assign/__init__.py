"""RTMDet's assignment."""

from __future__ import annotations

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from .. import _assignment_arguments as _arguments
from .._cost_assignment import CostAssignment
from . import native, reference

_OP = "dynamic_soft_label_assign"


def dynamic_soft_label_assign(
    logits: Tensor,
    boxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None = None,
    *,
    topk: int = 13,
    center_radius: float = 3.0,
    iou_weight: float = 3.0,
) -> CostAssignment:
    """Assigns ground truths to the anchors that cost least: the assignment of RTMDet
    (https://arxiv.org/abs/2212.07784), mmdet's DynamicSoftLabelAssigner.

    Candidates are the anchors whose point is inside of any ground truth's box. The cost of a candidate and a ground
    truth, near or far, is the sum of

    - over the classes: cross entropy of the logit with its target, times the squared distance of sigmoid(logit) from
      it. The target is the IoU of the anchor's box with the ground truth's for the class of the ground truth, 0 for
      the others;
    - -log(IoU + 1e-7) * iou_weight;
    - 10^(distance of the point from the box's centre / stride - center_radius).

    A ground truth claims the k candidates with the lowest cost. k is the sum of its topk highest IoUs with candidates,
    rounded down, but at least 1. An anchor that several claim goes to the ground truth with the lowest cost of all,
    whether it claims the anchor or not.

    Where two costs are equal, the anchor of the lower index counts as better; where two ground truths cost an anchor
    the same, the first. A box with NaN or infinite sides or without area, one past ``gt_counts``, or one whose label is
    not a class claims nothing. An anchor with NaN or infinity in its box, NaN among its logits, or a stride that is not
    above 0 is no candidate.

    No matrix of ground truths and anchors is built. Computes in float32, or in float64 if ``boxes`` is float64. There
    is no gradient.

    Args:
        logits: (B, A, C) of the classes. Any strides will do.
        boxes: (B, A, 4) predicted boxes, xyxy in pixels.
        points: (A, 2) x and y of the anchors, in pixels.
        strides: (A,) pixels per cell of each anchor's level.
        gt_boxes: (B, G, 4) xyxy in pixels, padded to the same G.
        gt_labels: (B, G) integers.
        gt_counts: (B,) integers: how many of the G boxes of each image are real. Default: all.
        topk: of how many IoUs k is the sum, 1 to 256.
        center_radius: where the cost of the distance is 1, in strides.
        iou_weight: at least 0.

    Returns:
        ``(assigned_gt, assigned_iou)``. RTMDet's head takes the IoU as the target of the score.

    Example:
        >>> points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]])
        >>> boxes = torch.tensor([[[0.0, 0.0, 16.0, 8.0], [0.0, 0.0, 14.0, 8.0], [16.0, 0.0, 24.0, 8.0]]])
        >>> gt = torch.tensor([[[0.0, 0.0, 16.0, 8.0]]])
        >>> found = dynamic_soft_label_assign(
        ...     torch.zeros(1, 3, 2), boxes, points, torch.full((3,), 8.0), gt, torch.tensor([[1]])
        ... )
        >>> found.assigned_gt, found.assigned_iou
        (tensor([[ 0, -1, -1]], dtype=torch.int32), tensor([[1., 0., 0.]]))
    """
    boxes, points, gt_boxes = _arguments.predictions(_OP, logits, "logits", boxes, points, gt_boxes)
    strides = _arguments.point_strides(_OP, strides, points)
    _arguments.ground_truths(_OP, gt_boxes, gt_labels, gt_counts)
    _arguments.best(_OP, "topk", topk)
    _check.number(_OP, "center_radius", center_radius, -1e6, 1e6)
    _check.number(_OP, "iou_weight", iou_weight, 0.0, 1e6)

    assign = kernels_for(_OP, boxes, native) or reference
    found = assign.dynamic_soft_label_assign(
        logits.detach(),
        *(boxes, points, strides),
        *(gt_boxes, gt_labels, gt_counts),
        topk=topk,
        center_radius=center_radius,
        iou_weight=iou_weight,
    )
    return CostAssignment(*found)
