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
    valid_shapes: Tensor | None
    topk: int
    anchor_scale: float
    center_offset: float
    heights: list[Size]
    widths: list[Size]
    strides: list[float]


_PLAIN_FIELDS = AtssAssign._fields[: AtssAssign._fields.index("heights")]
_kernel = Kernel(
    "atss_assign_run", (*_PLAIN_FIELDS, "levels", "batch", "num_gts", "dtype", "assigned_gt", "assigned_iou")
)


def _outputs_like(gt_boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    a = AtssAssign(gt_boxes, *args)
    anchors = sum(height * width for height, width in zip(a.heights, a.widths, strict=True))
    size = (gt_boxes.shape[0], anchors)
    return gt_boxes.new_empty(size, dtype=torch.int32), gt_boxes.new_empty(size, dtype=torch.float32)


def _assign(gt_boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    outputs = _outputs_like(gt_boxes, *args)
    fields, levels = args[:-3], args[-3:]
    _kernel.run(gt_boxes, *fields, levels, *gt_boxes.shape[:2], gt_boxes, *outputs)
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
        valid,
        topk,
        float(anchor_scale),
        float(center_offset),
        [height for height, _ in level_shapes],
        [width for _, width in level_shapes],
        [float(stride) for stride in strides],
    )
