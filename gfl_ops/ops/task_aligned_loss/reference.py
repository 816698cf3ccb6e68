"""The loss of a task-aligned head: assign by the head's own predictions, then a class loss and the box losses, all
divided by the sum of the target scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .._targets import PaddedTargets
from ..box_loss_maps.reference import positive_sums
from ..class_loss_maps.reference import class_loss_maps
from ..decode_maps.reference import decode_maps
from ..task_aligned_assign.reference import task_aligned_assign
from .types import Losses, Options


def task_aligned_loss(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    targets: PaddedTargets,
    options: Options,
    start_mean: Callable[[Tensor], Callable[[], Tensor]],
) -> Losses:
    shapes = [(x.shape[2], x.shape[3]) for x in cls_scores]
    with torch.no_grad():
        boxes, points = decode_maps(bbox_preds, options.boxes.strides, options.boxes.center_offset)
        gts = targets.boxes.to(boxes.dtype), targets.labels, targets.counts
        gt, _, score, label = task_aligned_assign(
            cls_scores, boxes, points, *gts, **options.assign.of_maps(shapes, options.boxes)
        )
        avg_factor = start_mean(score.sum())().clamp(min=1)
    sums = positive_sums(bbox_preds, gt, gts[0], score, options.boxes)
    loss_cls = class_loss_maps(cls_scores, label, score, *options.classes, "mean", avg_factor)
    num_pos = (gt >= 0).sum()
    cls_weight, bbox_weight, dfl_weight = options.loss_weights
    return Losses(
        cls_weight * loss_cls,
        bbox_weight * sums[0] / avg_factor,
        dfl_weight * sums[1] / avg_factor,
        num_pos.to(boxes.dtype),
        avg_factor,
        sums[2].sum() / num_pos.clamp(min=1),
    )
