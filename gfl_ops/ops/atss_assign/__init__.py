"""Adaptive Training Sample Selection."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from .. import _assignment_arguments as _arguments
from . import native, reference

_OP = "atss_assign"


def atss_assign(
    gt_boxes: Tensor,
    gt_counts: Tensor,
    level_shapes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    valid_shapes: Tensor | None = None,
    *,
    topk: int = 9,
    anchor_scale: float = 8.0,
    center_offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Assigns ground truths to the anchors of a feature pyramid (ATSS, https://arxiv.org/abs/1912.02424).

    Anchors are squares with sides of ``anchor_scale * stride``, centred at ((x + center_offset) * stride,
    (y + center_offset) * stride). The candidates of a ground truth are the topk anchors of each level whose centres are
    nearest to its own. A candidate becomes positive if its IoU is at least the mean plus the standard deviation of the
    IoUs of all candidates, and if its centre lies inside the box. If several ground truths want the same anchor, the
    one with the highest IoU gets it, and the first one if these are equal. A box without area, outside the image, or
    with NaN gets no anchor.

    The work grows with the number of ground truths and levels, not with the number of anchors.

    Args:
        gt_boxes: (B, G, 4) xyxy in pixels, padded to the same G.
        gt_counts: (B,) integers: how many of the G boxes of each image are real.
        level_shapes: (height, width) of each level, at most 8.
        strides: pixels per cell of each level.
        valid_shapes: (B, 2) height and width in pixels of each image inside the padded batch. Anchors outside it are
            ignored, also as candidates.
        topk: how many candidates a ground truth has on each level. A level with fewer cells has no more than those.
        anchor_scale: the side of an anchor, in strides.
        center_offset: where the centre of an anchor lies in its cell: 0 is the corner, 0.5 the middle.

    Returns:
        ``(assigned_gt, assigned_iou)``, both (B, A), with all anchors of the first level first. assigned_gt is int32:
        the index of a ground truth, -1 for background, -2 outside the valid shape. assigned_iou is float32: the IoU of
        the anchor with its ground truth, 0 if there is none.

    Example:
        >>> boxes = torch.tensor([[[40.0, 40.0, 104.0, 104.0]]])
        >>> assigned, iou = atss_assign(boxes, torch.tensor([1]), [(16, 16)], [8])
        >>> (assigned >= 0).sum().item(), iou.max().item()
        (1, 1.0)
    """
    gt_boxes = _checked_boxes(gt_boxes)
    batch = gt_boxes.shape[:1]
    _check.labels(_OP, "gt_counts", gt_counts, gt_boxes, batch, "(B,)")
    _arguments.levels(_OP, level_shapes, strides)
    if valid_shapes is not None:
        _check.real(_OP, "valid_shapes", valid_shapes)
        _check.shape(_OP, "valid_shapes", valid_shapes, (*batch, 2), "(B, 2)")
        _check.same_device(_OP, "valid_shapes", valid_shapes, gt_boxes)
        valid_shapes = valid_shapes.detach()
    _check.whole(_OP, "topk", topk, 1)
    _check.number(_OP, "anchor_scale", anchor_scale, math.ulp(0.0))
    _check.number(_OP, "center_offset", center_offset, -1e6, 1e6)

    kernels = kernels_for(_OP, gt_boxes, native)
    if kernels is not None:
        return kernels.atss_assign(
            gt_boxes, gt_counts, level_shapes, strides, valid_shapes, topk, anchor_scale, center_offset
        )
    return reference.atss_assign(
        gt_boxes,
        gt_counts,
        level_shapes,
        strides,
        valid_shapes,
        topk=topk,
        anchor_scale=anchor_scale,
        center_offset=center_offset,
    )


def _checked_boxes(gt_boxes: Tensor) -> Tensor:
    """In float32 or float64: an assignment in half precision would be another one."""
    _check.floating(_OP, "gt_boxes", gt_boxes)
    if gt_boxes.ndim != 3 or gt_boxes.shape[2] != 4:
        raise ValueError(f"{_OP}: gt_boxes must be (B, G, 4), got {tuple(gt_boxes.shape)}")
    gt_boxes = gt_boxes.detach()
    return gt_boxes if gt_boxes.dtype == torch.float64 else gt_boxes.float()
