# mypy: disable-error-code="no-untyped-def"
"""The box losses of the positives as Triton kernels, a launch for each level.

A program takes tiles of neighbouring positions of one image. Most have no positive and are done with at once; in the
others the four edges of each position lie side by side, as in the kernel of distribution_box_loss, and what is not
positive reads nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import _triton
from ._box_loss_maps import SUMS, BoxGradient, BoxLosses, PositiveBoxes, RawBoxLossMaps
from ._triton import number
from ._triton_maps import MAP_SIZES, levels_of, map_strides, tile_of_map
from ._triton_math.distribution_box_loss import distribution_box_gradient
from ._triton_math.elementary import exponential, quotient
from ._triton_math.gfl_loss import mean_quality, over_weight
from ._triton_math.softmax import logit, shifted_logit
from .distribution_box_loss.triton import box_of_edges, in_strides, mean_of_sides

_EDGE_ROWS = 32
_CLEARED_CHANNELS = 32


@triton.jit
def _clear(to, there, position, channel_stride, CHANNELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    for start in range(0, CHANNELS, BLOCK_CHANNELS):
        channel = start + tl.arange(0, BLOCK_CHANNELS)
        inside = there[:, None] & (channel < CHANNELS)[None, :]
        zero = tl.zeros([position.shape[0], BLOCK_CHANNELS], to.dtype.element_ty)
        tl.store(to + position[:, None] + (channel * channel_stride)[None, :], zero, mask=inside)


@triton.jit
def _upstream(grad_loss, scale, total_weight, DTYPE: tl.constexpr):
    """What a sum's gradient is, from the loss's."""
    if grad_loss is None:
        return tl.zeros([], DTYPE)
    else:
        grad = tl.load(grad_loss).to(tl.float64)
        return over_weight(grad, number(scale, tl.float64), tl.load(total_weight), DTYPE)


@triton.jit
def _points(position, side, width, stride, center_offset):
    """Of the anchor centre at each edge's position the coordinate that counts for its side, in strides."""
    cell = tl.where(side % 2 == 0, position % width, position // width).to(stride.dtype)
    return quotient(cell * stride + center_offset * stride, stride)


@triton.jit
def _store_gradient(
    x, to, edges, through_box, through_bins, step, positive, there,
    BINS: tl.constexpr, UNROLL: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Bin by bin; 0 by the logits of edges that are there and not positive."""
    near, largest, inverse_sum, expectation, _ = edges
    for k in tl.range(0, BINS, loop_unroll_factor=UNROLL):
        e = exponential(shifted_logit(logit(x, k, step, positive, DTYPE), largest))
        slope = distribution_box_gradient(e, k, near, inverse_sum, expectation, through_box, through_bins)
        tl.store(to + k * step, tl.where(positive, slope, 0.0).to(to.dtype.element_ty), mask=there)


_NUMBERS = ["scale_iou", "scale_dfl", "stride", "center_offset", "most", "eps"]


@triton.jit(do_not_specialize=[*MAP_SIZES, *_NUMBERS, "num_gts", "width", "tiles", "first_program", "programs"])
def positive_boxes_kernel(
    quality, partials, first_program, programs, grad_iou, grad_dfl, scale_iou, scale_dfl, total_weight, grad,
    edge_logits, assigned_gt, weights, gt_boxes, stride, center_offset, most, eps,
    num_gts, width, tiles, tiles_each, positions, first, anchors,
    KIND: tl.constexpr, EPS_RULE: tl.constexpr, ALPHA_RULE: tl.constexpr,
    BINS: tl.constexpr, UNROLL: tl.constexpr, UNIT: tl.constexpr, POSITIONS_ADJOIN: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    positions, position_stride, channel_stride = map_strides(positions, 4 * BINS, UNIT, POSITIONS_ADJOIN)
    stride = number(stride, DTYPE)
    center_offset = number(center_offset, DTYPE)
    most = number(most, DTYPE)
    eps = number(eps, DTYPE)
    if grad is not None:
        upstream_iou = _upstream(grad_iou, scale_iou, total_weight, DTYPE)
        upstream_dfl = _upstream(grad_dfl, scale_dfl, total_weight, DTYPE)
    side = tl.arange(0, 4 * BLOCK) % 4
    total_iou = tl.zeros([BLOCK], tl.float64)
    total_dfl = tl.zeros([BLOCK], tl.float64)
    total_quality = tl.zeros([BLOCK], tl.float64)
    weight_of_all = tl.zeros([BLOCK], tl.float64)
    number_of_all = tl.zeros([BLOCK], tl.float64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        image, start = tile_of_map(tile, tiles_each, BLOCK)
        position = start + tl.arange(0, BLOCK)
        there = position < positions
        image_anchor = image * anchors + first
        image_map = image * positions * (4 * BINS)
        positive = tl.load(assigned_gt + image_anchor + position, mask=there, other=-1) >= 0
        if tl.max(positive.to(tl.int32), 0) > 0:
            edge_position = start + tl.arange(0, 4 * BLOCK) // 4
            edge_there = edge_position < positions
            gt = tl.load(assigned_gt + image_anchor + edge_position, mask=edge_there, other=-1)
            edge_positive = gt >= 0
            border = in_strides(gt_boxes + 4 * (image * num_gts + gt) + side, stride, edge_positive)
            point = _points(edge_position, side, width, stride, center_offset)
            place = image_map + edge_position * position_stride + side * (BINS * channel_stride)
            x = edge_logits + place
            edges, box, slopes = box_of_edges(
                x, channel_stride, edge_positive, side, point, border, most, eps,
                KIND, EPS_RULE, ALPHA_RULE, BINS, UNROLL, DTYPE,
            )  # fmt: skip
            if grad is None:
                loss, overlap, _ = box
                weight = tl.load(weights + image_anchor + position, mask=positive, other=0.0)
                overlap = tl.where(positive, overlap, 0.0)
                tl.store(quality + image_anchor + position, overlap, mask=there)
                total_iou += tl.where(positive, loss * weight, 0.0).to(tl.float64)
                total_dfl += tl.where(positive, mean_of_sides(edges[4]) * weight, 0.0).to(tl.float64)
                total_quality += overlap.to(tl.float64)
                weight_of_all += weight.to(tl.float64)
                number_of_all += positive.to(tl.float64)
            else:
                weight = tl.load(weights + image_anchor + edge_position, mask=edge_positive, other=0.0)
                _store_gradient(
                    x, grad + place, edges, upstream_iou * weight * slopes, upstream_dfl * weight * 0.25,
                    channel_stride, edge_positive, edge_there, BINS, UNROLL, DTYPE,
                )  # fmt: skip
        elif grad is None:
            tl.store(quality + image_anchor + position, tl.zeros([BLOCK], DTYPE), mask=there)
        else:
            _clear(grad + image_map, there, position * position_stride, channel_stride, 4 * BINS, BLOCK_CHANNELS)
    if partials is not None:
        to = partials + first_program + tl.program_id(0)
        tl.store(to, tl.sum(total_iou))
        tl.store(to + programs, tl.sum(total_dfl))
        tl.store(to + 2 * programs, tl.sum(total_quality))
        tl.store(to + 3 * programs, tl.sum(weight_of_all))
        tl.store(to + 4 * programs, tl.sum(number_of_all))


@triton.jit(do_not_specialize=["scale_iou", "scale_dfl"])
def box_losses_kernel(
    loss_iou, loss_dfl, quality, sums, total_weight, num_pos, scale_iou, scale_dfl, DTYPE: tl.constexpr
):
    weight = tl.load(total_weight)
    tl.store(loss_iou, over_weight(tl.load(sums), number(scale_iou, tl.float64), weight, DTYPE))
    tl.store(loss_dfl, over_weight(tl.load(sums + 1), number(scale_dfl, tl.float64), weight, DTYPE))
    tl.store(quality, mean_quality(tl.load(sums + 2), tl.load(num_pos), DTYPE))


def _run_boxes(outputs: tuple[Tensor, Tensor] | None, gradient: BoxGradient | None, *args: Any) -> None:
    a = PositiveBoxes(*args)
    batch, channels = a.edges[0].shape[:2]
    quality, sums = outputs if outputs is not None else (None, None)
    grad_iou, grad_dfl, scale_iou, scale_dfl, total_weight, grads = gradient or (None, None, 0.0, 0.0, None, ())
    levels = list(levels_of(a.edges))
    tiles = [batch * level.tiles_each(_EDGE_ROWS) for level in levels]
    programs = [_triton.programs_for(number_of_tiles, a.weights) for number_of_tiles in tiles]
    partials = None if sums is None else sums.new_empty(SUMS, sum(programs))
    for i, level in enumerate(levels):
        _triton.launch(
            positive_boxes_kernel,
            programs[i],
            a.weights,
            quality,
            partials,
            sum(programs[:i]),
            sum(programs),
            grad_iou,
            grad_dfl,
            _triton.bits(scale_iou),
            _triton.bits(scale_dfl),
            total_weight,
            grads[i] if grads else None,
            level.map,
            a.assigned_gt,
            a.weights,
            a.gt_boxes,
            _triton.bits(a.strides[i]),
            _triton.bits(a.center_offset),
            _triton.bits(channels // 4 - 1 - a.target_margin),
            _triton.bits(a.eps),
            a.gt_boxes.shape[1],
            level.map.shape[3],
            tiles[i],
            level.tiles_each(_EDGE_ROWS),
            *level.sizes(),
            KIND=a.iou_kind,
            EPS_RULE=a.eps_rule,
            ALPHA_RULE=a.alpha_rule,
            BINS=channels // 4,
            UNROLL=8,
            **level.constants(),
            BLOCK=_EDGE_ROWS,
            BLOCK_CHANNELS=_CLEARED_CHANNELS,
            DTYPE=_triton.compute_type(a.weights),
        )
    if partials is not None:
        torch.sum(partials, 1, out=sums)


def _run_losses(outputs: tuple[Tensor, Tensor, Tensor], *args: Any) -> None:
    a = BoxLosses(*args)
    scales = _triton.bits(a.scale_iou), _triton.bits(a.scale_dfl)
    dtype = _triton.compute_type(a.num_pos)
    values = (*outputs, a.sums, a.total_weight, a.num_pos, *scales)
    _triton.launch(box_losses_kernel, 1, a.sums, *values, DTYPE=dtype, num_warps=1)


BOX_LOSS_MAPS = RawBoxLossMaps("triton_", _run_boxes, _run_losses)
