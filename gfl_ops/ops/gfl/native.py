"""The GFL loss on the compiled core: assign, one pass over the positives, one over the logits of all levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ... import _autograd, _native
from ..._library import register
from ..._reduce import FLOAT32_EPS
from .._class_loss import QUALITY_FOCAL
from .._dense_loss import dense_loss
from ..iou.native import EPS_RULES, KINDS, TRANSFORMS
from .types import Losses, Options, PaddedTargets

_OP = "gfl_loss"

# ---- which anchors are positive, and what they weigh ---------------------------------------------------


def _assign_fake(cls_scores: Sequence[Tensor], *args: object) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    size = (cls_scores[0].shape[0], sum(x.shape[2] * x.shape[3] for x in cls_scores))
    gts = cls_scores[0].new_empty(size, dtype=torch.int32)
    weights = gts.new_empty(size, dtype=_native.compute_dtype(cls_scores[0]))
    return gts, torch.empty_like(gts), weights, weights.new_empty(2), weights.new_empty(())


def _assign(
    cls_scores: Sequence[Tensor],
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None,
    valid_shapes: Tensor | None,
    strides: Sequence[float],
    topk: int,
    anchor_scale: float,
    center_offset: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(B, A) gts and their labels, (B, A) weights of the positives, the two normalisers, the number of positives."""
    outputs = gts, labels, weights, normalisers, num_pos = _assign_fake(cls_scores)
    core, device = _native.core_for(cls_scores[0])
    levels = _native.levels(cls_scores, strides)
    batch, most, _ = gt_boxes.shape
    classes = cls_scores[0].shape[1]
    dtype = _native.dtype_code(gt_boxes)
    scratch = gts.new_empty(core.atss_workspace_bytes(device, batch, most, dtype, levels, topk), dtype=torch.uint8)
    core.atss_assign(
        device,
        batch,
        most,
        dtype,
        gt_boxes.data_ptr(),
        _native.address(gt_counts),
        gt_labels.data_ptr(),
        classes,
        _native.address(valid_shapes),
        levels,
        topk,
        anchor_scale,
        center_offset,
        gts.data_ptr(),
        0,
        labels.data_ptr(),
        scratch.data_ptr(),
    )
    scratch = _native.maps_workspace(core, device, levels, cls_scores)
    core.positive_weights(
        device,
        batch,
        classes,
        levels,
        gts.data_ptr(),
        _native.maps(cls_scores),
        weights.data_ptr(),
        normalisers.data_ptr(),
        num_pos.data_ptr(),
        scratch.data_ptr(),
    )
    return outputs


_assign_op = register(
    "gfl_assign(Tensor[] cls_scores, Tensor gt_boxes, Tensor gt_labels, Tensor? gt_counts, Tensor? valid_shapes, "
    "float[] strides, int topk, float anchor_scale, float center_offset) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _assign,
    _assign_fake,
)

# ---- the boxes of the positives ------------------------------------------------------------------------

_BOX_ARGUMENTS = (
    "Tensor[] bbox_preds, Tensor gts, Tensor weights, Tensor gt_boxes, float[] strides, float center_offset, "
    "int iou_kind, float eps, float target_margin"
)


def _run_boxes(
    outputs: tuple[Tensor, Tensor] | None,
    gradient: tuple[Tensor | None, Tensor | None, float, float, Tensor, Sequence[Tensor]] | None,
    bbox_preds: Sequence[Tensor],
    gts: Tensor,
    weights: Tensor,
    gt_boxes: Tensor,
    strides: Sequence[float],
    center_offset: float,
    iou_kind: int,
    eps: float,
    target_margin: float,
) -> None:
    core, device = _native.core_for(gts)
    levels = _native.levels(bbox_preds, strides)
    batch, channels = bbox_preds[0].shape[:2]
    quality, sums = outputs if outputs is not None else (None, None)
    grad_iou, grad_dfl, scale_iou, scale_dfl, normalisers, grads = gradient or (None, None, 0.0, 0.0, None, ())
    scratch = _native.maps_workspace(core, device, levels, bbox_preds)
    core.positive_boxes(
        gradient is not None,
        device,
        (iou_kind, TRANSFORMS["linear"], EPS_RULES["floor"], eps),
        batch,
        channels // 4,
        levels,
        center_offset,
        target_margin,
        gts.data_ptr(),
        gt_boxes.shape[1],
        gt_boxes.data_ptr(),
        weights.data_ptr(),
        _native.maps(bbox_preds),
        _native.address(quality),
        _native.address(sums),
        _native.address(grad_iou),
        _native.address(grad_dfl),
        scale_iou,
        scale_dfl,
        _native.address(normalisers),
        _native.maps(grads),
        scratch.data_ptr(),
    )


def _boxes_fake(bbox_preds: Sequence[Tensor], gts: Tensor, weights: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(weights), weights.new_empty(3, dtype=torch.float64)


def _boxes(bbox_preds: Sequence[Tensor], gts: Tensor, weights: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    """(B, A) the positives' quality, and the sums that gfl_box_losses takes."""
    outputs = _boxes_fake(bbox_preds, gts, weights)
    _run_boxes(outputs, None, bbox_preds, gts, weights, *args)
    return outputs


def _boxes_backward_fake(
    grad_iou: Tensor | None,
    grad_dfl: Tensor | None,
    scale_iou: float,
    scale_dfl: float,
    normalisers: Tensor,
    *args: Any,
) -> list[Tensor]:
    return [torch.empty_like(x) for x in args[0]]


def _boxes_backward(*args: Any) -> list[Tensor]:
    grads = _boxes_backward_fake(*args)
    grad_iou, grad_dfl, scale_iou, scale_dfl, normalisers, *boxes = args
    _run_boxes(None, (grad_iou, grad_dfl, scale_iou, scale_dfl, normalisers, grads), *boxes)
    return grads


_boxes_op = register(f"gfl_boxes_forward({_BOX_ARGUMENTS}) -> (Tensor, Tensor)", _boxes, _boxes_fake)
_boxes_backward_op = register(
    "gfl_boxes_backward(Tensor? grad_iou, Tensor? grad_dfl, float scale_iou, float scale_dfl, Tensor normalisers, "
    f"{_BOX_ARGUMENTS}) -> Tensor[]",
    _boxes_backward,
    _boxes_backward_fake,
)


def _box_losses_fake(sums: Tensor, normalisers: Tensor, num_pos: Tensor, *scales: float) -> tuple[Tensor, ...]:
    return torch.empty_like(num_pos), torch.empty_like(num_pos), torch.empty_like(num_pos)


def _box_losses(
    sums: Tensor, normalisers: Tensor, num_pos: Tensor, scale_iou: float, scale_dfl: float
) -> tuple[Tensor, ...]:
    """loss_bbox, loss_dfl, mean quality."""
    outputs = _box_losses_fake(sums, normalisers, num_pos)
    core, device = _native.core_for(sums)
    inputs = (x.data_ptr() for x in (sums, normalisers, num_pos))
    core.box_losses(
        device, _native.dtype_code(num_pos), *inputs, scale_iou, scale_dfl, *(x.data_ptr() for x in outputs)
    )
    return outputs


_box_losses_op = register(
    "gfl_box_losses(Tensor sums, Tensor normalisers, Tensor num_pos, float scale_iou, float scale_dfl) "
    "-> (Tensor, Tensor, Tensor)",
    _box_losses,
    _box_losses_fake,
)


class _BoxLosses(torch.autograd.Function):
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
        outputs = _box_losses_op(sums, normalisers, num_pos, *scales)
        ctx.mark_non_differentiable(outputs[2])
        ctx.set_materialize_grads(False)  # zeros that nobody reads would be a launch
        return outputs

    @staticmethod
    def backward(ctx: Any, grad_iou: Tensor | None, grad_dfl: Tensor | None, _: None) -> Any:
        normalisers, gts, weights, gt_boxes, *bbox_preds = ctx.saved_tensors
        if grad_iou is None and grad_dfl is None:
            return (None,) * (8 + len(bbox_preds))
        grads = _boxes_backward_op(
            grad_iou, grad_dfl, *ctx.scales, normalisers, bbox_preds, gts, weights, gt_boxes, *ctx.options
        )
        return (None,) * 8 + tuple(_autograd.once(_OP, *grads))


# ---- the whole -----------------------------------------------------------------------------------------


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
    counts = None if targets.counts is None else targets.counts.long().contiguous()
    valid = None if valid_shapes is None else valid_shapes.to(boxes.dtype).contiguous()
    gts, labels, weights, normalisers, num_pos = _assign_op(
        [x.detach() for x in cls_scores],
        boxes,
        targets.labels.long().contiguous(),
        counts,
        valid,
        strides,
        options.topk,
        options.anchor_scale,
        options.center_offset,
    )
    finish_mean = start_mean(normalisers)
    box_options = (strides, options.center_offset, KINDS[options.iou_kind], options.eps, options.target_margin)
    boxes = boxes.to(weights.dtype)
    quality, sums = _boxes_op([x.detach() for x in bbox_preds], gts, weights, boxes, *box_options)
    normalisers = finish_mean()

    cls_weight, bbox_weight, dfl_weight = options.loss_weights
    # The sum of the positives is a mean by 1, that of their sides' mean one by 4; each has its eps.
    scales = (bbox_weight / (1 + FLOAT32_EPS), dfl_weight * 4 / (4 + FLOAT32_EPS))
    if _autograd.wants_gradient(*bbox_preds):
        box_losses = _BoxLosses.apply(sums, normalisers, num_pos, scales, gts, weights, boxes, box_options, *bbox_preds)
    else:
        box_losses = _box_losses_op(sums, normalisers, num_pos, *scales)
    loss_bbox, loss_dfl, mean_quality = box_losses
    loss_cls = dense_loss(_OP, cls_scores, labels, quality, normalisers, cls_weight, QUALITY_FOCAL, options.beta)
    return Losses(loss_cls, loss_bbox, loss_dfl, num_pos, normalisers[0], mean_quality)
