"""FCOS's assignment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ... import _check
from ..._arguments import compute_dtype
from ..._dispatch import kernels_for
from .. import _assignment_arguments as _arguments
from . import native, reference

_OP = "fcos_assign"


class FcosAssignment(NamedTuple):
    """Of each cell of each image, all cells of the first level first."""

    assigned_gt: Tensor
    """(B, A) int32: the index of a ground truth, or -1 for background."""
    distances: Tensor
    """(B, A, 4) from the cell's point to the left, top, right and bottom side of its ground truth in pixels, 0 for
    background."""
    centerness: Tensor
    """(B, A) sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)), 0 for background."""


def fcos_assign(
    gt_boxes: Tensor,
    gt_counts: Tensor | None,
    level_shapes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    *,
    ranges: Sequence[tuple[float, float]],
    radius: float | None = 1.5,
    center_offset: float = 0.5,
) -> FcosAssignment:
    """Assigns ground truths to the cells of a feature pyramid by place and size: the assignment of FCOS
    (https://arxiv.org/abs/1904.01355), as mmdet's ``FCOSHead`` makes it.

    The point of a cell is ((x + center_offset) * stride, (y + center_offset) * stride). A cell may learn a ground truth
    if its point lies inside of the square of ``radius`` strides to each side of the box's centre, cut to the box, and
    if the longest of its distances to the box's sides is in the level's range. Of several ground truths a cell learns
    the one with the smallest area, the first of equal ones. A box with NaN or infinite sides or without area, or one
    past ``gt_counts``, claims nothing.

    Only the cells that a box covers are looked at. Computes in float32, or in float64 if ``gt_boxes`` is float64. There
    is no gradient.

    Args:
        gt_boxes: (B, G, 4) xyxy in pixels, padded to the same G.
        gt_counts: (B,) integers: how many of the G boxes of each image are real. None: all.
        level_shapes: (height, width) of each level, at most 8.
        strides: pixels per cell of each level.
        ranges: the least and the most of a level's longest distances in pixels, both included. FCOS: (-1, 64),
            (64, 128), (128, 256), (256, 512), (512, inf).
        radius: of the square around a box's centre, in strides. None or 0: anywhere inside of the box, as FCOS had it
            at first.
        center_offset: where the point of a cell lies in it: 0 is the corner, 0.5 the middle.

    Returns:
        ``(assigned_gt, distances, centerness)``. A head that predicts distances in strides divides them by its strides.

    Example:
        >>> boxes = torch.tensor([[[0.0, 0.0, 24.0, 24.0]]])
        >>> found = fcos_assign(boxes, None, [(4, 4)], [8], ranges=[(-1, 64)], radius=0.9)
        >>> (found.assigned_gt[0] >= 0).nonzero()[:, 0].tolist(), found.centerness.max().item()
        ([5], 1.0)
    """
    _arguments.gt_list(_OP, gt_boxes, None)
    _arguments.counts(_OP, gt_boxes, gt_counts)
    _arguments.levels(_OP, level_shapes, strides)
    _check_ranges(ranges, len(level_shapes))
    if radius is not None:
        _check.number(_OP, "radius", radius, 0.0)
    _check.number(_OP, "center_offset", center_offset, -1e6, 1e6)

    assign = kernels_for(_OP, gt_boxes, native) or reference
    found = assign.fcos_assign(
        gt_boxes.detach().to(compute_dtype(gt_boxes)),
        gt_counts,
        level_shapes,
        strides,
        ranges=[(float(low), float(high)) for low, high in ranges],
        radius=float(radius or 0),
        center_offset=float(center_offset),
    )
    return FcosAssignment(*found)


def _check_ranges(ranges: Any, levels: int) -> None:
    _check.sequence(_OP, "ranges", ranges, "of (least, most) pairs")
    if len(ranges) != levels:
        raise ValueError(f"{_OP}: ranges must have one pair for each of {levels} levels, got {len(ranges)}")
    for pair in ranges:
        _check.sequence(_OP, "ranges", pair, "of (least, most) pairs")
        if len(pair) != 2:
            raise ValueError(f"{_OP}: ranges must be (least, most) pairs, got {tuple(pair)}")
        _check.number(_OP, "ranges", pair[0], -math.inf)
        if pair[1] != math.inf:
            _check.number(_OP, "ranges", pair[1], -math.inf)
