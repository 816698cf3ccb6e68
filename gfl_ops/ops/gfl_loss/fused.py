"""The GFL loss on kernels, whichever: assign, one pass over the positives, one over the logits of all levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _autograd, _native
from ..._library import register
from ..._reduce import FLOAT32_EPS
from .._class_loss import QUALITY_FOCAL
from ..iou_loss.native import KINDS
from .types import Losses, Options, PaddedTargets

_OP = "gfl_loss"
_ASSIGN_ARGUMENTS = (
    "Tensor[] cls_scores, Tensor gt_boxes, Tensor gt_labels, Tensor? gt_counts, Tensor? valid_shapes, float[] strides, "
    "int topk, float anchor_scale, float center_offset"
)
_BOX_ARGUMENTS = (
    "Tensor[] bbox_preds, Tensor gts, Tensor weights, Tensor gt_boxes, float[] strides, float center_offset, "
    "int iou_kind, float eps, float target_margin"
)

Assigned = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
BoxGradient = tuple[Tensor | None, Tensor | None, float, float, Tensor, Sequence[Tensor]]


class Kernels(NamedTuple):
    """What a backend has for the loss. All but the last write into outputs that they are given."""

    # (outputs, cls_scores, gt_boxes, ...): (B, A) gts and their labels, (B, A) weights of the positives, the two
    # normalisers, the number of positives
    assign: Callable[..., None]
    # (outputs, gradient, bbox_preds, gts, ...): (B, A) quality of the positives and the three sums that box_losses
    # takes; or, where those are None, from (grad_iou, grad_dfl, their scales, normalisers, ...) the maps' gradients
    boxes: Callable[..., None]
    # (outputs, sums, normalisers, num_pos, scales): loss_bbox, loss_dfl, mean quality
    box_losses: Callable[..., None]
    multilevel_class_loss: Callable[..., Tensor]


class _Ops(NamedTuple):
    assign: Callable[..., Assigned]
    boxes: Callable[..., tuple[Tensor, Tensor]]
    boxes_backward: Callable[..., list[Tensor]]
    box_losses: Callable[..., tuple[Tensor, Tensor, Tensor]]


def _register(prefix: str, kernels: Kernels) -> _Ops:
    """gfl_ops::<prefix>gfl_assign and so on."""

    def assign_fake(cls_scores: Sequence[Tensor], *args: object) -> Assigned:
        size = (cls_scores[0].shape[0], sum(x.shape[2] * x.shape[3] for x in cls_scores))
        gts = cls_scores[0].new_empty(size, dtype=torch.int32)
        weights = gts.new_empty(size, dtype=_native.compute_dtype(cls_scores[0]))
        return gts, torch.empty_like(gts), weights, weights.new_empty(2), weights.new_empty(())

    def assign(cls_scores: Sequence[Tensor], *args: Any) -> Assigned:
        outputs = assign_fake(cls_scores)
        kernels.assign(outputs, cls_scores, *args)
        return outputs

    def boxes_fake(bbox_preds: Sequence[Tensor], gts: Tensor, weights: Tensor, *args: object) -> tuple[Tensor, Tensor]:
        return torch.empty_like(weights), weights.new_empty(3, dtype=torch.float64)

    def boxes(bbox_preds: Sequence[Tensor], gts: Tensor, weights: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        outputs = boxes_fake(bbox_preds, gts, weights)
        kernels.boxes(outputs, None, bbox_preds, gts, weights, *args)
        return outputs

    def boxes_backward_fake(*args: Any) -> list[Tensor]:
        return [torch.empty_like(x) for x in args[5]]

    def boxes_backward(*args: Any) -> list[Tensor]:
        grads = boxes_backward_fake(*args)
        for grad in grads:
            _native.expect_to_fill(grad)
        kernels.boxes(None, (*args[:5], grads), *args[5:])
        return grads

    def box_losses_fake(sums: Tensor, normalisers: Tensor, num_pos: Tensor, *scales: float) -> tuple[Tensor, ...]:
        return torch.empty_like(num_pos), torch.empty_like(num_pos), torch.empty_like(num_pos)

    def box_losses(sums: Tensor, normalisers: Tensor, num_pos: Tensor, *scales: float) -> tuple[Tensor, ...]:
        outputs = box_losses_fake(sums, normalisers, num_pos)
        kernels.box_losses(outputs, sums, normalisers, num_pos, *scales)
        return outputs

    return _Ops(
        register(
            f"{prefix}gfl_assign({_ASSIGN_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)", assign, assign_fake
        ),
        register(f"{prefix}gfl_boxes_forward({_BOX_ARGUMENTS}) -> (Tensor, Tensor)", boxes, boxes_fake),
        register(
            f"{prefix}gfl_boxes_backward(Tensor? grad_iou, Tensor? grad_dfl, float scale_iou, float scale_dfl, "
            f"Tensor normalisers, {_BOX_ARGUMENTS}) -> Tensor[]",
            boxes_backward,
            boxes_backward_fake,
        ),
        register(
            f"{prefix}gfl_box_losses(Tensor sums, Tensor normalisers, Tensor num_pos, float scale_iou, "
            "float scale_dfl) -> (Tensor, Tensor, Tensor)",
            box_losses,
            box_losses_fake,
        ),
    )


def _fused_box_losses(ops: _Ops) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    class BoxLosses(torch.autograd.Function):
        """The forward has its sums already; the backward works the positives out again, which are few."""

        @staticmethod
        def forward(
            ctx: Any,
            sums: Tensor,
            normalisers: Tensor,
            num_pos: Tensor,
            scales: tuple[float, float],
            gts: Tensor,
            weights: Tensor,
            gt_boxes: Tensor,
            options: tuple[Any, ...],
            *bbox_preds: Tensor,
        ) -> tuple[Tensor, ...]:
            ctx.scales, ctx.options = scales, options
            ctx.save_for_backward(normalisers, gts, weights, gt_boxes, *bbox_preds)
            outputs = ops.box_losses(sums, normalisers, num_pos, *scales)
            ctx.mark_non_differentiable(outputs[2])
            ctx.set_materialize_grads(False)  # zeros that nobody reads would be a launch
            return outputs

        @staticmethod
        def backward(ctx: Any, grad_iou: Tensor | None, grad_dfl: Tensor | None, _: None) -> Any:
            normalisers, gts, weights, gt_boxes, *bbox_preds = ctx.saved_tensors
            if grad_iou is None and grad_dfl is None:
                return (None,) * (8 + len(bbox_preds))
            grads = ops.boxes_backward(
                grad_iou, grad_dfl, *ctx.scales, normalisers, bbox_preds, gts, weights, gt_boxes, *ctx.options
            )
            return (None,) * 8 + tuple(_autograd.once(_OP, *grads))

    def losses(
        sums: Tensor, normalisers: Tensor, num_pos: Tensor, scales: tuple[float, float], *boxes: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        *_, bbox_preds = boxes
        if _autograd.wants_gradient(*bbox_preds):
            return BoxLosses.apply(sums, normalisers, num_pos, scales, *boxes[:-1], *bbox_preds)
        return ops.box_losses(sums, normalisers, num_pos, *scales)

    return losses


def fused_loss(prefix: str, kernels: Kernels) -> Callable[..., Losses]:
    """gfl_loss as the reference has it, on one backend."""
    ops = _register(prefix, kernels)
    box_losses = _fused_box_losses(ops)

    def gfl_loss(
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
        boxes = targets.boxes.contiguous()
        how = (strides, options.center_offset, KINDS[options.iou_kind], options.eps, options.target_margin)
        with torch.no_grad():
            gts, labels, weights, normalisers, num_pos = ops.assign(
                cls_scores,
                boxes,
                targets.labels.long().contiguous(),
                None if targets.counts is None else targets.counts.long().contiguous(),
                None if valid_shapes is None else valid_shapes.to(boxes.dtype).contiguous(),
                strides,
                options.topk,
                options.anchor_scale,
                options.center_offset,
            )
            finish_mean = start_mean(normalisers)
            boxes = boxes.to(weights.dtype)
            quality, sums = ops.boxes(bbox_preds, gts, weights, boxes, *how)
            normalisers = finish_mean()

        cls_weight, bbox_weight, dfl_weight = options.loss_weights
        # The sum of the positives is a mean by 1, that of their sides' mean one by 4; each has its eps.
        scales = (bbox_weight / (1 + FLOAT32_EPS), dfl_weight * 4 / (4 + FLOAT32_EPS))
        loss_bbox, loss_dfl, mean_quality = box_losses(
            sums, normalisers, num_pos, scales, gts, weights, boxes, how, bbox_preds
        )
        loss_cls = kernels.multilevel_class_loss(
            _OP, cls_scores, labels, quality, normalisers, cls_weight, QUALITY_FOCAL, options.beta
        )
        return Losses(loss_cls, loss_bbox, loss_dfl, num_pos, normalisers[0], mean_quality)

    return gfl_loss
