"""The kernels of the GFL loss on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _native
from .._multilevel_class_loss import multilevel_class_loss
from ..iou_loss.native import EPS_RULES, TRANSFORMS
from .fused import Assigned, BoxGradient, Kernels, fused_loss


def _assign(
    outputs: Assigned,
    cls_scores: Sequence[Tensor],
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_counts: Tensor | None,
    valid_shapes: Tensor | None,
    strides: Sequence[float],
    topk: int,
    anchor_scale: float,
    center_offset: float,
) -> None:
    gts, labels, weights, normalisers, num_pos = outputs
    core, device = _native.core_for(cls_scores[0])
    levels = _native.levels(cls_scores, strides)
    batch, most, _ = gt_boxes.shape
    classes = cls_scores[0].shape[1]
    dtype = _native.dtype_code(gt_boxes)
    scratch = gts.new_empty(
        core.atss_assign_workspace_bytes(device, batch, most, dtype, levels, topk), dtype=torch.uint8
    )
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


def _boxes(
    outputs: tuple[Tensor, Tensor] | None,
    gradient: BoxGradient | None,
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


def _box_losses(
    outputs: tuple[Tensor, Tensor, Tensor],
    sums: Tensor,
    normalisers: Tensor,
    num_pos: Tensor,
    scale_iou: float,
    scale_dfl: float,
) -> None:
    core, device = _native.core_for(sums)
    inputs = (x.data_ptr() for x in (sums, normalisers, num_pos))
    core.box_losses(
        device, _native.dtype_code(num_pos), *inputs, scale_iou, scale_dfl, *(x.data_ptr() for x in outputs)
    )


gfl_loss = fused_loss("", Kernels(_assign, _boxes, _box_losses, multilevel_class_loss))
