"""The GFL loss on kernels, whichever: assign, one pass over the positives, one over the logits of all levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _native
from ..._arguments import compute_dtype
from ..._op import Op, arguments_of
from ..._reduce import FLOAT32_EPS
from .._box_loss_maps import BoxLossMapsOp, RawBoxLossMaps
from .._class_loss import QUALITY_FOCAL
from .._multilevel_class_loss import MultilevelLossOp, RawMultilevelLoss
from .._targets import PaddedTargets
from ..iou_loss.native import ALPHA_RULES, EPS_RULES, KINDS
from .types import Losses, Options

_OP = "gfl_loss"
Assigned = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Assign(NamedTuple):
    cls_scores: list[Tensor]
    gt_boxes: Tensor
    gt_labels: Tensor
    gt_counts: Tensor | None
    valid_shapes: Tensor | None
    strides: list[float]
    topk: int
    anchor_scale: float
    center_offset: float


class RawAssign(Op):
    """(B, A) assigned gts, their labels and the weights of the positives; the two normalisers; the number of positives.

    run(outputs, *Assign) writes into outputs that it is given.
    """

    def __init__(self, prefix: str, run: Callable[..., None]) -> None:
        self.run = run
        five = f"({', '.join(['Tensor'] * 5)})"
        super().__init__(f"{prefix}gfl_assign", arguments_of(Assign), five, self._assign, self._assigned_like)

    def _assigned_like(self, cls_scores: Sequence[Tensor], *_: Any) -> Assigned:
        size = (cls_scores[0].shape[0], sum(x.shape[2] * x.shape[3] for x in cls_scores))
        assigned_gt = cls_scores[0].new_empty(size, dtype=torch.int32)
        weights = assigned_gt.new_empty(size, dtype=compute_dtype(cls_scores[0]))
        return assigned_gt, torch.empty_like(assigned_gt), weights, weights.new_empty(2), weights.new_empty(())

    def _assign(self, cls_scores: Sequence[Tensor], *args: Any) -> Assigned:
        outputs = self._assigned_like(cls_scores)
        self.run(outputs, cls_scores, *args)
        return outputs


class FusedGFLLoss:
    """gfl_loss as the reference has it, on one backend: its assignment, and the two stages that it shares."""

    def __init__(self, assign: RawAssign, boxes: RawBoxLossMaps, classes: RawMultilevelLoss) -> None:
        self.assign = assign
        self.boxes = boxes
        self.box_losses = BoxLossMapsOp(_OP, boxes)
        self.class_loss = MultilevelLossOp(_OP, classes)

    def __call__(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        targets: PaddedTargets,
        valid_shapes: Tensor | None,
        options: Options,
        start_mean: Callable[[Tensor], Callable[[], Tensor]],
    ) -> Losses:
        cls_scores = [_native.as_map(x) for x in cls_scores]
        bbox_preds = [_native.as_map(x) for x in bbox_preds]
        strides = list(options.strides)
        gt_boxes = targets.boxes.contiguous()
        with torch.no_grad():
            assigned_gt, labels, weights, normalisers, num_pos = self.assign(
                cls_scores,
                gt_boxes,
                targets.labels.long().contiguous(),
                None if targets.counts is None else targets.counts.long().contiguous(),
                None if valid_shapes is None else valid_shapes.to(gt_boxes.dtype).contiguous(),
                strides,
                options.topk,
                options.anchor_scale,
                options.center_offset,
            )
            finish_mean = start_mean(normalisers)
            rules = KINDS[options.iou_kind], EPS_RULES[options.eps_rule], ALPHA_RULES[options.alpha_rule]
            box_options = strides, options.center_offset, *rules, options.eps, options.target_margin
            boxes = (assigned_gt, weights, gt_boxes.to(weights.dtype), *box_options)
            quality, sums = self.boxes.forward(bbox_preds, *boxes)
            avg_factor, total_weight = finish_mean().unbind()

        cls_weight, bbox_weight, dfl_weight = options.loss_weights
        # The sum of the positives is a mean by 1, that of their sides' mean one by 4; each has its eps.
        scales = (bbox_weight / (1 + FLOAT32_EPS), dfl_weight * 4 / (4 + FLOAT32_EPS))
        loss_bbox, loss_dfl, mean_quality = self.box_losses(bbox_preds, sums, total_weight, num_pos, *scales, *boxes)
        loss_cls = self.class_loss(
            cls_scores, labels, quality, avg_factor, cls_weight, QUALITY_FOCAL, options.beta, 0.0
        )
        return Losses(loss_cls, loss_bbox, loss_dfl, num_pos, avg_factor, mean_quality)
