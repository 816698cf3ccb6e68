"""The GFL loss of a dense head (Li et al. 2020): ATSS, then quality focal, IoU and distribution focal loss.

All anchors of all levels stand side by side here, and what only positives have is masked out elsewhere, so that no
step asks the device how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..._reduce import FLOAT32_EPS
from .._class_targets import side_by_side
from ..atss_assign.reference import OUTSIDE, anchor_grid, atss_assign
from ..distribution_box_loss.reference import distribution_box_loss
from ..quality_focal_loss.reference import quality_focal_loss
from .types import Losses, Options, PaddedTargets


def gfl_loss(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    targets: PaddedTargets,
    valid_shapes: Tensor | None,
    options: Options,
    start_mean: Callable[[Tensor], Callable[[], Tensor]],
) -> Losses:
    logits, edges = side_by_side(cls_scores), side_by_side(bbox_preds)  # (B, A, C), (B, A, 4 * bins)
    batch, _anchors, classes = logits.shape
    level_shapes = [(x.shape[2], x.shape[3]) for x in cls_scores]
    gt = assigned_gts(
        targets,
        classes,
        level_shapes,
        options.strides,
        valid_shapes,
        topk=options.topk,
        anchor_scale=options.anchor_scale,
        center_offset=options.center_offset,
    )
    positive = gt >= 0
    weight = torch.where(positive, logits.detach().sigmoid().amax(2), 0.0)
    num_pos = positive.sum(1)
    normalisers = torch.stack([num_pos.clamp(min=1).sum().to(weight.dtype), weight.sum()])
    avg_factor, total_weight = start_mean(normalisers)().unbind()

    boxes, labels = _of_assigned(gt, targets)
    points, strides = anchor_grid(boxes, level_shapes, options.strides, options.center_offset)
    box = distribution_box_loss(
        torch.where(positive[..., None], edges, 0.0).flatten(0, 1),
        points.repeat(batch, 1),
        boxes.flatten(0, 1),
        weight.flatten(),
        stride=strides.repeat(batch, 1).flatten(),
        iou_kind=options.iou_kind,
        eps=options.eps,
        target_margin=options.target_margin,
        reduction="sum",
        eps_rule=options.eps_rule,
        alpha_rule=options.alpha_rule,
    )
    quality = torch.where(positive.flatten(), box.quality, 0.0)
    loss_cls = quality_focal_loss(
        logits.flatten(0, 1), (labels.flatten(), quality), (gt.flatten() != OUTSIDE), options.beta, "mean", avg_factor
    )
    # The weighted sums are means first: over the positives' weight by 1, over the four sides by 4, each with an eps.
    scale = 1 / total_weight.clamp(min=1)
    cls_weight, bbox_weight, dfl_weight = options.loss_weights
    return Losses(
        cls_weight * loss_cls,
        bbox_weight * (box.loss_iou / (1 + FLOAT32_EPS) * scale),
        dfl_weight * (4 * box.loss_dfl / (4 + FLOAT32_EPS) * scale),
        num_pos.sum().to(weight.dtype),
        avg_factor,
        quality.sum() / num_pos.sum().clamp(min=1),
    )


def assigned_gts(
    targets: PaddedTargets,
    classes: int,
    level_shapes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    valid_shapes: Tensor | None,
    **options: Any,
) -> Tensor:
    """(B, A). A gt of an unknown class takes no part, as if it had no place."""
    known = (targets.labels >= 0) & (targets.labels < classes)
    boxes = torch.where(known[..., None], targets.boxes, torch.nan)
    batch, most = targets.labels.shape
    counts = targets.labels.new_full((batch,), most) if targets.counts is None else targets.counts
    gt, _ = atss_assign(boxes, counts, level_shapes, strides, valid_shapes, **options)
    return gt.long()


def _of_assigned(gt: Tensor, targets: PaddedTargets) -> tuple[Tensor, Tensor]:
    """(B, A, 4) boxes, of no size where there is no gt; (B, A) labels, -1 there."""
    batch, most = targets.labels.shape
    boxes = torch.cat([targets.boxes, targets.boxes.new_zeros(batch, 1, 4)], 1)
    labels = torch.cat([targets.labels, targets.labels.new_full((batch, 1), -1)], 1)
    index = torch.where(gt >= 0, gt, most)
    return boxes.gather(1, index[..., None].expand(-1, -1, 4)), labels.gather(1, index)
