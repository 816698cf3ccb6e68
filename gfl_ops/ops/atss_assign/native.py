"""ATSS on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._native import Kernel
from ..._op import Op, Size, arguments_of


class AtssAssign(NamedTuple):
    """gfl_atss_assign in csrc/gfl.h"""

    gt_boxes: Tensor
    gt_counts: Tensor
    heights: list[Size]
    widths: list[Size]
    strides: list[float]
    valid_shapes: Tensor | None
    topk: int
    anchor_scale: float
    center_offset: float


_kernel = Kernel(
    "atss_assign_run",
    (
        *("gt_boxes", "gt_counts", "levels", *AtssAssign._fields[5:]),
        *("batch", "num_gts", "dtype", "assigned_gt", "assigned_iou"),
    ),
)


def _outputs_like(gt_boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    a = AtssAssign(gt_boxes, *args)
    anchors = sum(height * width for height, width in zip(a.heights, a.widths, strict=True))
    size = (gt_boxes.shape[0], anchors)
    return gt_boxes.new_empty(size, dtype=torch.int32), gt_boxes.new_empty(size, dtype=torch.float32)


def _assign(gt_boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    outputs = _outputs_like(gt_boxes, *args)
    counts, levels, options = args[0], args[1:4], args[4:]
    _kernel.run(gt_boxes, counts, levels, *options, *gt_boxes.shape[:2], gt_boxes, *outputs)
    return outputs


_assign_op = Op("atss_assign", arguments_of(AtssAssign), "(Tensor, Tensor)", _assign, _outputs_like)


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
