# mypy: disable-error-code="no-untyped-def"
"""The box half of the GFL loss on Triton: a thread for each positive, side after side."""

from __future__ import annotations

import functools

import triton
import triton.language as tl
from torch import Tensor

from ..._reduce import ROWS, Reduction
from .. import _triton
from .._triton import effective_scale, number
from .._triton_math.box_distribution import box_distribution, box_distribution_gradient, target_distance
from .._triton_math.dfl import dfl_forward, dfl_target
from .._triton_math.elementary import exponential, quotient
from .._triton_math.softmax import shifted_logit
from ..iou.triton import load_boxes, store_boxes
from . import native

_ROWS = 64
_WARPS = 2


@triton.jit
def _side(
    x, point_x, point_y, box, most, step, there,
    SIDE: tl.constexpr, BINS: tl.constexpr, UNROLL: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """(loss, maximum, 1 / sum, expectation) of one side's distribution, and its target."""
    near = dfl_target(target_distance(point_x, point_y, box, SIDE, most), 0.0, BINS)
    row = dfl_forward(x + SIDE * BINS * step, step, there, near, BINS, UNROLL, DTYPE)
    return row, near


@triton.jit
def _store_side(
    x, to, row, near, through_box, through_bins, step, grad_step, there,
    SIDE: tl.constexpr, BINS: tl.constexpr, BLOCK_BINS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    near = (near[0][:, None], near[1][:, None], near[2][:, None], near[3][:, None])
    _, most, inverse_sum, expectation = row
    for start in range(0, BINS, BLOCK_BINS):
        k = (start + tl.arange(0, BLOCK_BINS))[None, :]
        inside = there[:, None] & (k < BINS)
        logits = tl.load(x[:, None] + (SIDE * BINS + k) * step, mask=inside, other=0.0).to(DTYPE)
        e = exponential(shifted_logit(logits, most[:, None]))
        slope = box_distribution_gradient(
            e, k, near, inverse_sum[:, None], expectation[:, None], through_box[:, None], through_bins[:, None]
        )
        tl.store(to[:, None] + (SIDE * BINS + k) * grad_step, slope.to(to.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["scale", "rows", "tiles", "stride", "most", "eps", "grad_loss_row"])
def box_distribution_kernel(
    iou_losses, dfl_losses, partials, avg_factor, scale, rows, tiles,
    edge_logits, anchor_points, target_boxes, strides, weight, boxes, quality, grad_iou, grad_dfl, grad,
    stride, most, eps, logits_row, logits_channel, grad_row, grad_channel, grad_loss_row,
    KIND: tl.constexpr, BINS: tl.constexpr, UNROLL: tl.constexpr, BLOCK_BINS: tl.constexpr,
    BLOCK: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    scale = effective_scale(scale, avg_factor, DTYPE)
    most = number(most, DTYPE)
    eps = number(eps, DTYPE)
    total_iou = tl.zeros([BLOCK], tl.float64)
    total_dfl = tl.zeros([BLOCK], tl.float64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        there = row < rows
        if strides is None:
            pixels = tl.zeros([BLOCK], DTYPE) + number(stride, DTYPE)
        else:
            pixels = tl.load(strides + row, mask=there, other=1.0)
        point_x = quotient(tl.load(anchor_points + 2 * row, mask=there, other=0.0), pixels)
        point_y = quotient(tl.load(anchor_points + 2 * row + 1, mask=there, other=0.0), pixels)
        box = load_boxes(target_boxes, row, 4, 1, there, DTYPE)
        box = (quotient(box[0], pixels), quotient(box[1], pixels), quotient(box[2], pixels), quotient(box[3], pixels))

        x = edge_logits + row * logits_row
        left, near_left = _side(x, point_x, point_y, box, most, logits_channel, there, 0, BINS, UNROLL, DTYPE)
        top, near_top = _side(x, point_x, point_y, box, most, logits_channel, there, 1, BINS, UNROLL, DTYPE)
        right, near_right = _side(x, point_x, point_y, box, most, logits_channel, there, 2, BINS, UNROLL, DTYPE)
        bottom, near_bottom = _side(x, point_x, point_y, box, most, logits_channel, there, 3, BINS, UNROLL, DTYPE)
        loss, overlap, decoded, slopes = box_distribution(
            point_x, point_y, box, (left[3], top[3], right[3], bottom[3]), eps, KIND
        )
        factor = tl.zeros([BLOCK], DTYPE) + scale
        row_weight = tl.full([BLOCK], 1.0, DTYPE)
        if weight is not None:
            row_weight = tl.load(weight + row, mask=there, other=0.0)
        if grad is None:
            loss = loss * row_weight
            dfl = (left[0] + top[0] + right[0] + bottom[0]) * 0.25 * row_weight
            decoded = (decoded[0] * pixels, decoded[1] * pixels, decoded[2] * pixels, decoded[3] * pixels)
            store_boxes(boxes, row, 4, 1, there, decoded)
            tl.store(quality + row, overlap, mask=there)
            if iou_losses is not None:
                tl.store(iou_losses + row, loss * scale, mask=there)
                tl.store(dfl_losses + row, dfl * scale, mask=there)
            total_iou += tl.where(there, loss, 0.0).to(tl.float64)
            total_dfl += tl.where(there, dfl, 0.0).to(tl.float64)
        else:
            factor = factor * row_weight
            by_box = tl.load(grad_iou + row * grad_loss_row, mask=there, other=0.0) * factor
            by_bins = tl.load(grad_dfl + row * grad_loss_row, mask=there, other=0.0) * factor * 0.25
            to = grad + row * grad_row
            _store_side(
                x, to, left, near_left, by_box * slopes[0], by_bins, logits_channel, grad_channel, there,
                0, BINS, BLOCK_BINS, DTYPE,
            )  # fmt: skip
            _store_side(
                x, to, top, near_top, by_box * slopes[1], by_bins, logits_channel, grad_channel, there,
                1, BINS, BLOCK_BINS, DTYPE,
            )  # fmt: skip
            _store_side(
                x, to, right, near_right, by_box * slopes[2], by_bins, logits_channel, grad_channel, there,
                2, BINS, BLOCK_BINS, DTYPE,
            )  # fmt: skip
            _store_side(
                x, to, bottom, near_bottom, by_box * slopes[3], by_bins, logits_channel, grad_channel, there,
                3, BINS, BLOCK_BINS, DTYPE,
            )  # fmt: skip
    if partials is not None:
        tl.store(partials + tl.program_id(0), tl.sum(total_iou))
        tl.store(partials + tl.num_programs(0) + tl.program_id(0), tl.sum(total_dfl))


def _run(
    grad_losses: tuple[Tensor, Tensor] | None,
    outputs: tuple[Tensor | None, ...],
    grad: Tensor | None,
    edge_logits: Tensor,
    kind: int,
    scale: float,
    count: int,
    avg_factor: Tensor | None,
    anchor_points: Tensor,
    target_boxes: Tensor,
    strides: Tensor | None,
    weight: Tensor | None,
    stride: float,
    target_margin: float,
    iou_kind: int,
    eps: float,
) -> None:
    rows, channels = edge_logits.shape
    bins = channels // 4
    iou_loss, dfl_loss, boxes, quality = outputs
    grad_iou, grad_dfl = grad_losses if grad_losses is not None else (None, None)
    _triton.launch_loss(
        box_distribution_kernel,
        edge_logits,
        (iou_loss, dfl_loss),
        Reduction(kind, scale, count, avg_factor),
        rows,
        _ROWS,
        edge_logits,
        anchor_points,
        target_boxes,
        strides,
        weight,
        boxes,
        quality,
        grad_iou,
        grad_dfl,
        grad,
        _triton.bits(stride),
        _triton.bits(bins - 1 - target_margin),
        _triton.bits(eps),
        *edge_logits.stride(),
        *(edge_logits if grad is None else grad).stride(),
        1 if kind == ROWS else 0,
        KIND=iou_kind,
        **_triton.bins_constants(bins),
        BLOCK=_ROWS,
        DTYPE=_triton.compute_type(edge_logits),
        num_warps=_WARPS,
    )


_losses = native.fused_loss(*native.register_ops("triton_box_distribution_loss", _run))

distribution_box_loss = functools.partial(native.distribution_box_loss, fused=_losses)
