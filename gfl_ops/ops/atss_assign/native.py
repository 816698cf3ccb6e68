"""ATSS on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _native
from ..._library import register


def _outputs(gt_boxes: Tensor, heights: Sequence[int], widths: Sequence[int]) -> tuple[Tensor, Tensor]:
    anchors = sum(height * width for height, width in zip(heights, widths, strict=True))
    size = (gt_boxes.shape[0], anchors)
    return gt_boxes.new_empty(size, dtype=torch.int32), gt_boxes.new_empty(size, dtype=torch.float32)


def _assign(
    gt_boxes: Tensor,
    gt_counts: Tensor,
    heights: Sequence[int],
    widths: Sequence[int],
    strides: Sequence[float],
    valid_shapes: Tensor | None,
    topk: int,
    anchor_scale: float,
    center_offset: float,
) -> tuple[Tensor, Tensor]:
    core, device = _native.core_for(gt_boxes)
    assigned_gt, assigned_iou = _outputs(gt_boxes, heights, widths)
    levels = tuple(zip(heights, widths, strides, strict=True))
    batch, gts, _ = gt_boxes.shape
    dtype = _native.dtype_code(gt_boxes)
    size = core.atss_assign_workspace_bytes(device, batch, gts, dtype, levels, topk)
    workspace = torch.empty(size, dtype=torch.uint8, device=gt_boxes.device)
    core.atss_assign(
        device,
        batch,
        gts,
        dtype,
        gt_boxes.data_ptr(),
        gt_counts.data_ptr(),
        0,
        0,
        _native.address(valid_shapes),
        levels,
        topk,
        anchor_scale,
        center_offset,
        assigned_gt.data_ptr(),
        assigned_iou.data_ptr(),
        0,
        workspace.data_ptr(),
    )
    return assigned_gt, assigned_iou


_assign_op = register(
    "atss_assign(Tensor gt_boxes, Tensor gt_counts, SymInt[] heights, SymInt[] widths, float[] strides, "
    "Tensor? valid_shapes, int topk, float anchor_scale, float center_offset) -> (Tensor, Tensor)",
    _assign,
    lambda gt_boxes, gt_counts, heights, widths, *_: _outputs(gt_boxes, heights, widths),
)


def atss_assign(
    gt_boxes: Tensor,
    gt_counts: Tensor,
    level_shapes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    valid_shapes: Tensor | None,
    topk: int,
    anchor_scale: float,
    center_offset: float,
) -> tuple[Tensor, Tensor]:
    valid = None if valid_shapes is None else valid_shapes.to(gt_boxes.dtype).contiguous()
    return _assign_op(
        gt_boxes.contiguous(),
        gt_counts.long().contiguous(),
        [height for height, _ in level_shapes],
        [width for _, width in level_shapes],
        [float(stride) for stride in strides],
        valid,
        topk,
        float(anchor_scale),
        float(center_offset),
    )
