"""FCOS's assignment on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._native import Kernel
from ..._op import Op, Size, arguments_of


class FcosAssign(NamedTuple):
    """gfl_fcos_assign in csrc/gfl.h"""

    gt_boxes: Tensor
    gt_counts: Tensor | None
    heights: list[Size]
    widths: list[Size]
    strides: list[float]
    lows: list[float]
    highs: list[float]
    radius: float
    center_offset: float


_kernel = Kernel(
    "fcos_assign_run",
    (
        *("gt_boxes", "gt_counts", "levels", "ranges", "radius", "center_offset"),
        *("batch", "num_gts", "dtype", "assigned_gt", "distances", "centerness"),
    ),
)


def _outputs_like(gt_boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    a = FcosAssign(gt_boxes, *args)
    anchors = sum(height * width for height, width in zip(a.heights, a.widths, strict=True))
    size = (gt_boxes.shape[0], anchors)
    return gt_boxes.new_empty(size, dtype=torch.int32), gt_boxes.new_empty((*size, 4)), gt_boxes.new_empty(size)


def _assign(gt_boxes: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    outputs = _outputs_like(gt_boxes, *args)
    counts, levels, ranges, options = args[0], args[1:4], args[4:6], args[6:]
    _kernel.run(gt_boxes, counts, levels, ranges, *options, *gt_boxes.shape[:2], gt_boxes, *outputs)
    return outputs


_assign_op = Op("fcos_assign", arguments_of(FcosAssign), "(Tensor, Tensor, Tensor)", _assign, _outputs_like)


def fcos_assign(
    gt_boxes: Tensor,
    gt_counts: Tensor | None,
    level_shapes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    *,
    ranges: Sequence[tuple[float, float]],
    radius: float,
    center_offset: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _assign_op(
        gt_boxes.contiguous(),
        None if gt_counts is None else gt_counts.long().contiguous(),
        [height for height, _ in level_shapes],
        [width for _, width in level_shapes],
        [float(stride) for stride in strides],
        [low for low, _ in ranges],
        [high for _, high in ranges],
        radius,
        center_offset,
    )
