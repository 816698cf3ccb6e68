"""The box losses of a dense head, of all anchors side by side; what is not positive is masked out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._class_targets import side_by_side
from .._head_maps import BoxOptions
from ..atss_assign.reference import anchor_grid
from ..box_iou.reference import box_iou
from ..distribution_box_loss.reference import distribution_box_loss
from ..iou_loss.reference import iou_loss


def box_loss_maps(
    bbox_preds: Sequence[Tensor],
    assigned_gt: Tensor,
    gt_boxes: Tensor,
    weights: Tensor,
    avg_factor: float | Tensor | None,
    options: BoxOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    loss_iou, loss_dfl, quality = positive_sums(bbox_preds, assigned_gt, gt_boxes, weights, options)
    if avg_factor is None:
        avg_factor = torch.where(assigned_gt >= 0, weights.to(loss_iou.dtype), 0.0).sum()
    factor = avg_factor if isinstance(avg_factor, Tensor) else loss_iou.new_full((), avg_factor)
    factor = factor.detach().reshape(()).to(loss_iou).clamp(min=1)
    return loss_iou / factor, loss_dfl / factor, quality


def positive_sums(
    bbox_preds: Sequence[Tensor], assigned_gt: Tensor, gt_boxes: Tensor, weights: Tensor, options: BoxOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted sums of both losses, and the quality (B, A)."""
    edges = side_by_side(bbox_preds)  # (B, A, 4 * bins)
    positive = assigned_gt >= 0
    boxes = _of_assigned(assigned_gt, gt_boxes.to(edges.dtype)).flatten(0, 1)
    weight = torch.where(positive, weights.to(edges.dtype), 0.0).flatten()
    shapes = [(x.shape[2], x.shape[3]) for x in bbox_preds]
    points, strides = anchor_grid(edges, shapes, options.strides, options.center_offset)
    points, strides = (x.repeat(len(edges), 1) for x in (points, strides))
    edges = torch.where(positive[..., None], edges, 0.0).flatten(0, 1)
    if edges.shape[1] == 4:
        height, width = (cells * options.strides[0] for cells in shapes[0])
        size = edges.new_tensor([width, height, width, height])
        loss_iou, loss_dfl, quality = _of_distances(edges, points, boxes, weight, strides, size, options)
    else:
        loss_iou, loss_dfl, _, quality = distribution_box_loss(
            edges,
            points,
            boxes,
            weight,
            stride=strides.flatten(),
            iou_kind=options.iou_kind,
            eps=options.eps,
            target_margin=options.target_margin,
            reduction="sum",
            eps_rule=options.eps_rule,
            alpha_rule=options.alpha_rule,
        )
    return loss_iou, loss_dfl, torch.where(positive, quality.reshape(positive.shape), 0.0)


def _of_assigned(gt: Tensor, boxes: Tensor) -> Tensor:
    """(B, A, 4) boxes, of no size where there is no gt."""
    batch, most = boxes.shape[:2]
    padded = torch.cat([boxes, boxes.new_zeros(batch, 1, 4)], 1)
    index = torch.where(gt >= 0, gt, most).long()
    return padded.gather(1, index[..., None].expand(-1, -1, 4))


def _of_distances(
    distance: Tensor, points: Tensor, boxes: Tensor, weight: Tensor, strides: Tensor, size: Tensor, options: BoxOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """IoU loss and L1 loss of plain distances (A, 4) in strides; the latter as a share of the image."""
    points, target = points / strides, boxes / strides
    wanted = torch.cat([points - target[:, :2], target[:, 2:] - points], 1)
    loss_l1 = ((distance - wanted).abs() * (strides / size)).mean(1)
    decoded = torch.cat([points - distance[:, :2], points + distance[:, 2:]], 1)
    loss_iou = iou_loss(
        decoded,
        target,
        weight,
        options.iou_kind,
        options.eps,
        "sum",
        eps_rule=options.eps_rule,
        alpha_rule=options.alpha_rule,
    )
    return loss_iou, (loss_l1 * weight).sum(), box_iou(decoded.detach(), target, aligned=True)
