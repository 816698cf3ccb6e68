"""Assignment by the highest IoU."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _check
from ..._arguments import compute_dtype
from ..._dispatch import kernels_for
from .. import _assignment_arguments as _arguments
from . import native, reference

_OP = "max_iou_assign"


class MaxIouAssignment(NamedTuple):
    """Of each anchor of each image; both are (B, A)."""

    assigned_gt: Tensor
    """int32: the index of a ground truth, -1 for background, -2 where the anchor takes no part."""
    assigned_iou: Tensor
    """The IoU of the anchor with its ground truth, 0 where it has none."""


def max_iou_assign(
    anchors: Tensor,
    gt_boxes: Tensor,
    gt_counts: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    positive_iou: float = 0.5,
    negative_iou: float | tuple[float, float] = 0.4,
    least_iou: float | None = 0.0,
    all_best: bool = True,
) -> MaxIouAssignment:
    """Assigns ground truths to the anchors that overlap them most: the assignment of RetinaNet
    (https://arxiv.org/abs/1708.02002), region proposal networks, SSD and second stages, as mmdet's ``MaxIoUAssigner``
    makes it.

    An anchor whose highest IoU is at least ``positive_iou`` learns that ground truth, the first of equal ones. One
    whose highest IoU is below ``negative_iou`` is background. What lies between takes no part. After that, each ground
    truth claims the anchors that overlap it most, whatever they were assigned to before: all anchors with the same
    highest IoU, or the first of them. If several ground truths claim an anchor, it goes to the last one.

    An anchor outside of ``valid`` takes no part, also not as the best of a ground truth. A box with NaN or infinite
    sides or without area, one past ``gt_counts``, or one that overlaps no anchor claims nothing. (There mmdet differs:
    with a ``min_pos_iou`` of 0, a ground truth that overlaps no anchor claims them all.)

    No matrix of anchors and ground truths is built. Computes in float32, or in float64 if ``anchors`` is float64. There
    is no gradient.

    ============ ========================================================================
    RetinaNet    the defaults
    RPN          ``positive_iou=0.7, negative_iou=0.3, least_iou=0.3``
    SSD          ``negative_iou=0.5, all_best=False``
    Second stage ``negative_iou=0.5, least_iou=None``
    ============ ========================================================================

    torchvision's ``Matcher`` has the same positives. But where a ground truth claims an anchor that overlaps another
    one more, it gives the anchor to the other.

    Args:
        anchors: (A, 4) xyxy in pixels, the same in all images, or (B, A, 4).
        gt_boxes: (B, G, 4) xyxy in pixels, padded to the same G.
        gt_counts: (B,) integers: how many of the G boxes of each image are real. Default: all.
        valid: (A,) or (B, A) bool: which anchors take part. Default: all.
        positive_iou: what the highest IoU of an anchor must reach for it to learn that ground truth.
        negative_iou: what it must be below for the anchor to be background. With a pair it must also reach the first
            of the two, unless the image has no ground truth.
        least_iou: what the highest IoU of a ground truth must reach for it to claim anchors. None: none does.
        all_best: whether a ground truth claims all anchors with its highest IoU, or the first one alone.

    Returns:
        ``(assigned_gt, assigned_iou)``.

    Example:
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 1.0], [4.0, 0.0], [20.0, 0.0]])
        >>> anchors = torch.cat([corner, corner + 8], 1)
        >>> max_iou_assign(anchors, anchors[None, :1], negative_iou=0.3).assigned_gt
        tensor([[ 0,  0, -2, -1]], dtype=torch.int32)
    """
    _check.floating(_OP, "anchors", anchors)
    if anchors.ndim not in (2, 3) or anchors.shape[-1] != 4:
        raise ValueError(f"{_OP}: anchors must be (A, 4) or (B, A, 4), got {tuple(anchors.shape)}")
    _arguments.gt_list(_OP, gt_boxes, anchors.shape[0] if anchors.ndim == 3 else None)
    _check.on_device_of(_OP, "anchors", anchors, "gt_boxes", gt_boxes)
    _arguments.counts(_OP, gt_boxes, gt_counts)
    if valid is not None:
        _check_valid(valid, anchors, gt_boxes)
    background = negative_iou if isinstance(negative_iou, (tuple, list)) else (0.0, negative_iou)
    if len(background) != 2:
        raise ValueError(f"{_OP}: negative_iou must be a number or a pair of numbers, got {negative_iou}")
    _check.number(_OP, "positive_iou", positive_iou, math.ulp(0.0))
    for value in background:
        _check.number(_OP, "negative_iou", value, 0.0)
    if least_iou is not None:
        _check.number(_OP, "least_iou", least_iou, 0.0)
    _check.flag(_OP, "all_best", all_best)

    dtype = compute_dtype(anchors)
    options: dict[str, Any] = {
        "positive_iou": float(positive_iou),
        "background": (float(background[0]), float(background[1])),
        "least_iou": math.inf if least_iou is None else float(least_iou),
        "all_best": all_best,
    }
    assign = kernels_for(_OP, anchors, native) or reference
    found = assign.max_iou_assign(anchors.detach().to(dtype), gt_boxes.detach().to(dtype), gt_counts, valid, **options)
    return MaxIouAssignment(*found)


def _check_valid(valid: Any, anchors: Tensor, gt_boxes: Tensor) -> None:
    _check.tensor(_OP, "valid", valid)
    if valid.dtype != torch.bool:
        raise TypeError(f"{_OP}: valid must be bool, got {str(valid.dtype).removeprefix('torch.')}")
    size = anchors.shape[-2]
    if valid.ndim == 1:
        _check.shape(_OP, "valid", valid, (size,), "(A,)")
    else:
        _check.shape(_OP, "valid", valid, (gt_boxes.shape[0], size), "(A,) or (B, A)")
    _check.on_device_of(_OP, "valid", valid, "gt_boxes", gt_boxes)
