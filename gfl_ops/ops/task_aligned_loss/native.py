"""The task-aligned loss on the compiled core: decode, assign, one pass over the positives, one over the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..._native import as_map
from .._box_loss_maps import BOX_LOSS_MAPS, BoxLossMapsOp
from .._multilevel_class_loss import MULTILEVEL_CLASS_LOSS, MultilevelLossOp
from .._targets import PaddedTargets
from ..class_loss_maps.native import KINDS
from ..decode_maps.native import decode_maps
from ..task_aligned_assign.native import task_aligned_assign
from .types import Losses, Options

_OP = "task_aligned_loss"
_BOX_LOSSES = BoxLossMapsOp(_OP, BOX_LOSS_MAPS)
_CLASS_LOSS = MultilevelLossOp(_OP, MULTILEVEL_CLASS_LOSS)


def task_aligned_loss(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    targets: PaddedTargets,
    options: Options,
    start_mean: Callable[[Tensor], Callable[[], Tensor]],
) -> Losses:
    cls_scores, bbox_preds = [as_map(x) for x in cls_scores], [as_map(x) for x in bbox_preds]
    shapes = [(x.shape[2], x.shape[3]) for x in cls_scores]
    with torch.no_grad():
        boxes, points = decode_maps(bbox_preds, options.boxes.strides, options.boxes.center_offset)
        gt_boxes = targets.boxes.to(boxes.dtype).contiguous()
        gts = gt_boxes, targets.labels, targets.counts
        assigned_gt, _, weights, labels = task_aligned_assign(
            cls_scores, boxes, points, *gts, **options.assign.of_maps(shapes, options.boxes)
        )
        positives = (assigned_gt, weights, gt_boxes, *options.boxes.for_kernels())
        _, sums = BOX_LOSS_MAPS.forward(bbox_preds, *positives)
        total_weight, num_pos = sums[3:].to(weights.dtype).unbind()
        total_weight = start_mean(total_weight)()
        avg_factor = total_weight.clamp(min=1)

    cls_weight, *box_weights = options.loss_weights
    kind, gamma, alpha = options.classes
    loss_bbox, loss_dfl, mean_quality = _BOX_LOSSES(bbox_preds, sums, total_weight, num_pos, *box_weights, *positives)
    loss_cls = _CLASS_LOSS(cls_scores, labels, weights, avg_factor, cls_weight, KINDS[kind], gamma, alpha)
    return Losses(loss_cls, loss_bbox, loss_dfl, num_pos, avg_factor, mean_quality)
