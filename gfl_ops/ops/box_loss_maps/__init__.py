"""The box losses of a dense head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from .. import _assignment_arguments as _arguments
from .._head_maps import BoxOptions, check_edges, checked_box_options
from . import native, reference

_OP = "box_loss_maps"


class BoxLossMaps(NamedTuple):
    loss_bbox: Tensor
    """A scalar: the IoU loss of the positives."""
    loss_dfl: Tensor
    """A scalar: distribution focal loss; with one bin the L1 loss of the distances."""
    quality: Tensor
    """(B, A): the IoU of each positive's decoded box with its ground truth, 0 elsewhere. Detached."""


def box_loss_maps(
    bbox_preds: Sequence[Tensor],
    assigned_gt: Tensor,
    gt_boxes: Tensor,
    weights: Tensor,
    avg_factor: float | Tensor | None = None,
    *,
    strides: Sequence[float],
    center_offset: float = 0.5,
    iou_kind: str = "ciou",
    eps: float = 1e-7,
    target_margin: float = 0.01,
    eps_rule: str = "add",
    alpha_rule: str | None = None,
) -> BoxLossMaps:
    """The box losses of the positives of all levels, in one pass over those: the third stage of a head's loss, behind
    an assigner and beside :func:`class_loss_maps`.

    The box of a positive is decoded from its distributions, in units of its stride. Its IoU loss and its distribution
    focal loss (the mean over the sides) are multiplied by its weight, and added up; the sums are divided by avg_factor,
    or by 1 if that is less. With one bin a map holds the distances themselves, and in place of distribution focal loss
    there is their L1 loss, the mean over the sides, measured in widths and heights of the image: the cells of the first
    level times its stride.

    No list of positives is made, and the host never waits for the GPU. The defaults are those of ultralytics.

    Args:
        bbox_preds: (B, 4 * bins, H, W) of each level, contiguous or channels-last, at most 8 levels; 1 to 256 bins.
        assigned_gt: (B, A) integers, as assigners return them: the index of a positive's ground truth; below 0 there is
            none. One that is not below G raises an error if it is in host memory; on a GPU it counts as none.
        gt_boxes: (B, G, 4) xyxy in pixels.
        weights: (B, A) weights of the positives; not read elsewhere.
        avg_factor: what to divide by: a number, or a tensor of one value. Default: the sum of the positives' weights.
        strides: pixels per cell of each level.
        center_offset: where the centre of a cell lies in it: 0 is the corner, 0.5 the middle.
        iou_kind: ``"ciou"``, ``"giou"``, ``"diou"`` or ``"iou"``.
        eps: of the IoU loss, in stride units.
        target_margin: target distances are clamped to this far below the last bin.
        eps_rule: of the IoU loss, as in :func:`iou_loss`: ``"floor"`` or ``"add"``.
        alpha_rule: of CIoU, as in :func:`iou_loss`: ``"half"`` or ``"always"``, which is the default there.

    Returns:
        ``(loss_bbox, loss_dfl, quality)`` in float32, or float64 for float64 maps.

    Example:
        >>> preds = [torch.randn(1, 64, size, size, requires_grad=True) for size in (8, 4)]
        >>> assigned_gt, gt_boxes = torch.full((1, 80), -1), torch.tensor([[[8.0, 8.0, 40.0, 32.0]]])
        >>> assigned_gt[0, 18] = 0
        >>> losses = box_loss_maps(preds, assigned_gt, gt_boxes, torch.ones(1, 80), strides=(8, 16))
        >>> (losses.loss_bbox + losses.loss_dfl).backward()
    """
    check_edges(_OP, bbox_preds, strides, least_bins=1)
    first = bbox_preds[0]
    batch, channels = first.shape[:2]
    anchors = sum(x.shape[2] * x.shape[3] for x in bbox_preds)
    _arguments.gt_list(_OP, gt_boxes, batch)
    _check.on_device_of(_OP, "gt_boxes", gt_boxes, "bbox_preds", first)
    assigned_gt = _checked_gts(assigned_gt, first, (batch, anchors), gt_boxes.shape[1])
    _check.companion(_OP, "weights", weights, first, (batch, anchors), "(B, A)")
    _check.reduction(_OP, "mean", avg_factor, first)
    rule = alpha_rule or ("always" if iou_kind == "ciou" else "half")
    options = BoxOptions(tuple(strides), center_offset, iou_kind, eps, target_margin, eps_rule, rule)
    options = checked_box_options(_OP, options, channels // 4)
    run = kernels_for(_OP, first, native) or reference
    return BoxLossMaps(*run.box_loss_maps(bbox_preds, assigned_gt, gt_boxes.detach(), weights, avg_factor, options))


def _checked_gts(assigned_gt: Tensor, first: Tensor, size: tuple[int, int], gts: int) -> Tensor:
    _check.labels(_OP, "assigned_gt", assigned_gt, first, size, "(B, A)")
    assigned_gt = assigned_gt.to(torch.int32)
    if assigned_gt.is_cpu and not torch.compiler.is_compiling() and assigned_gt.numel() > 0:
        highest = int(assigned_gt.max())
        if highest >= gts:
            raise ValueError(f"{_OP}: assigned_gt must be below G = {gts}, got {highest}")
        return assigned_gt
    return assigned_gt.masked_fill(assigned_gt >= gts, -1)
