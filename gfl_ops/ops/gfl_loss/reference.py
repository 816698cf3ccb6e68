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
from .._head_maps import BoxOptions
from .._targets import PaddedTargets
from ..atss_assign.reference import atss_assign
from ..box_loss_maps.reference import positive_sums
from ..class_loss_maps.reference import class_loss_maps
from .types import Losses, Options


def gfl_loss(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    targets: PaddedTargets,
    valid_shapes: Tensor | None,
    options: Options,
    start_mean: Callable[[Tensor], Callable[[], Tensor]],
) -> Losses:
    level_shapes = [(x.shape[2], x.shape[3]) for x in cls_scores]
    gt = assigned_gts(
        targets,
        cls_scores[0].shape[1],
        level_shapes,
        options.strides,
        valid_shapes,
        topk=options.topk,
        anchor_scale=options.anchor_scale,
        center_offset=options.center_offset,
    )
    positive = gt >= 0
    highest = side_by_side(cls_scores).detach().sigmoid().amax(2)
    weight = torch.where(positive, highest, 0.0)
    num_pos = positive.sum(1)
    normalisers = torch.stack([num_pos.clamp(min=1).sum().to(weight.dtype), weight.sum()])
    avg_factor, total_weight = start_mean(normalisers)().unbind()

    rules = options.iou_kind, options.eps, options.target_margin, options.eps_rule, options.alpha_rule
    boxes = BoxOptions(options.strides, options.center_offset, *rules)
    loss_iou, loss_dfl, quality = positive_sums(bbox_preds, gt, targets.boxes, weight, boxes)
    labels = _labels_of_assigned(gt, targets.labels)
    loss_cls = class_loss_maps(cls_scores, labels, quality, "quality_focal", options.beta, 0.0, "mean", avg_factor)
    # The weighted sums are means first: over the positives' weight by 1, over the four sides by 4, each with an eps.
    scale = 1 / total_weight.clamp(min=1)
    cls_weight, bbox_weight, dfl_weight = options.loss_weights
    return Losses(
        cls_weight * loss_cls,
        bbox_weight * (loss_iou / (1 + FLOAT32_EPS) * scale),
        dfl_weight * (4 * loss_dfl / (4 + FLOAT32_EPS) * scale),
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


def _labels_of_assigned(gt: Tensor, labels: Tensor) -> Tensor:
    """(B, A); where there is no gt, what stands in its place."""
    padded = torch.cat([labels, labels.new_full((len(labels), 1), -1)], 1)
    return torch.where(gt >= 0, padded.gather(1, gt.clamp(min=-1) % padded.shape[1]), gt)
