# mypy: disable-error-code="no-untyped-def"
"""The box half of the GFL loss on Triton: a thread for each edge of a positive, the four of a box side by side.

What concerns the box as a whole is computed by the threads of its edges together: the tile of edges is split into four
vectors, one a side, and what comes of them is joined into a tile of edges again.
"""

from __future__ import annotations

import functools
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..._arguments import ROWS
from .. import _triton
from .._triton import effective_scale, number
from .._triton_math.distribution_box_loss import distribution_box, distribution_box_gradient, target_distance
from .._triton_math.distribution_focal_loss import dfl_forward, dfl_target
from .._triton_math.elementary import exponential, quotient
from .._triton_math.softmax import shifted_logit
from ..iou_loss.triton import of_sides, sides_of, store_boxes
from . import native

_ROWS = 32


@triton.jit
def in_strides(values, pixels, there):
    """Coordinates in stride units."""
    return quotient(tl.load(values, mask=there, other=0.0), pixels)


@triton.jit
def _pixels(strides, stride, row, there, DTYPE: tl.constexpr):
    """How many pixels a stride unit is: a row's own, or one for all."""
    if strides is None:
        return tl.zeros(row.shape, DTYPE) + number(stride, DTYPE)
    else:
        return tl.load(strides + row, mask=there, other=1.0)


@triton.jit
def box_of_edges(
    x, step, there, side, point, border, most, eps,
    KIND: tl.constexpr, EPS_RULE: tl.constexpr, ALPHA_RULE: tl.constexpr,
    BINS: tl.constexpr, UNROLL: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """((DFL target, maximum, 1 / sum, expectation, DFL) of each edge, (IoU loss, quality, decoded box) of each box, the
    slope of its IoU loss by each edge's expectation). Edge by edge come the coordinate of the anchor point that counts
    for a side, and the target's border."""
    near = dfl_target(target_distance(point, border, side, most), 0.0, BINS)
    dfl, largest, inverse_sum, expectation = dfl_forward(x, step, there, near, BINS, UNROLL, DTYPE)
    point_x, point_y, _, _ = sides_of(point)
    loss, overlap, decoded, slopes = distribution_box(
        point_x, point_y, sides_of(border), sides_of(expectation), eps, KIND, EPS_RULE, ALPHA_RULE
    )
    return (near, largest, inverse_sum, expectation, dfl), (loss, overlap, decoded), of_sides(slopes)


@triton.jit
def mean_of_sides(dfl):
    left, top, right, bottom = sides_of(dfl)
    return (left + top + right + bottom) * 0.25


@triton.jit
def _store_gradient(
    x, to, edges, through_box, through_bins, step, grad_step, there,
    BINS: tl.constexpr, BLOCK_BINS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    near, largest, inverse_sum, expectation, _ = edges
    near = (near[0][:, None], near[1][:, None], near[2][:, None], near[3][:, None])
    for start in range(0, BINS, BLOCK_BINS):
        k = (start + tl.arange(0, BLOCK_BINS))[None, :]
        inside = there[:, None] & (k < BINS)
        logits = tl.load(x[:, None] + k * step, mask=inside, other=0.0).to(DTYPE)
        e = exponential(shifted_logit(logits, largest[:, None]))
        slope = distribution_box_gradient(
            e, k, near, inverse_sum[:, None], expectation[:, None], through_box[:, None], through_bins[:, None]
        )
        tl.store(to[:, None] + k * grad_step, slope.to(to.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["scale", "rows", "tiles", "stride", "most", "eps", "grad_loss_row"])
def distribution_box_loss_kernel(
    loss_iou, loss_dfl, partials, avg_factor, scale, rows, tiles,
    logits, anchor_points, target_boxes, strides, weight, boxes, quality, grad_iou, grad_dfl, grad,
    stride, most, eps, logits_row, logits_channel, grad_row, grad_channel, grad_loss_row,
    IOU_KIND: tl.constexpr, EPS_RULE: tl.constexpr, ALPHA_RULE: tl.constexpr,
    BINS: tl.constexpr, UNROLL: tl.constexpr, BLOCK_BINS: tl.constexpr, BLOCK: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    scale = effective_scale(scale, avg_factor, DTYPE)
    most = number(most, DTYPE)
    eps = number(eps, DTYPE)
    total_iou = tl.zeros([BLOCK], tl.float64)
    total_dfl = tl.zeros([BLOCK], tl.float64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        first = tl.cast(tile, tl.int64) * BLOCK
        row = first + tl.arange(0, BLOCK)
        there = row < rows
        edge = tl.arange(0, 4 * BLOCK)
        side = edge % 4
        edge_row = first + edge // 4
        edge_there = edge_row < rows

        edge_pixels = _pixels(strides, stride, edge_row, edge_there, DTYPE)
        point = in_strides(anchor_points + 2 * edge_row + side % 2, edge_pixels, edge_there)
        border = in_strides(target_boxes + 4 * edge_row + side, edge_pixels, edge_there)
        x = logits + edge_row * logits_row + side * (BINS * logits_channel)
        edges, box, slopes = box_of_edges(
            x, logits_channel, edge_there, side, point, border, most, eps,
            IOU_KIND, EPS_RULE, ALPHA_RULE, BINS, UNROLL, DTYPE,
        )  # fmt: skip
        if grad is None:
            loss, overlap, decoded = box
            dfl_loss = mean_of_sides(edges[4])
            pixels = _pixels(strides, stride, row, there, DTYPE)
            if weight is not None:
                row_weight = tl.load(weight + row, mask=there, other=0.0)
                loss = loss * row_weight
                dfl_loss = dfl_loss * row_weight
            decoded = (decoded[0] * pixels, decoded[1] * pixels, decoded[2] * pixels, decoded[3] * pixels)
            store_boxes(boxes, row, 4, 1, there, decoded, True)
            tl.store(quality + row, overlap, mask=there)
            if loss_iou is not None:
                tl.store(loss_iou + row, loss * scale, mask=there)
                tl.store(loss_dfl + row, dfl_loss * scale, mask=there)
            total_iou += tl.where(there, loss, 0.0).to(tl.float64)
            total_dfl += tl.where(there, dfl_loss, 0.0).to(tl.float64)
        else:
            factor = tl.zeros([4 * BLOCK], DTYPE) + scale
            if weight is not None:
                factor = factor * tl.load(weight + edge_row, mask=edge_there, other=0.0)
            by_box = tl.load(grad_iou + edge_row * grad_loss_row, mask=edge_there, other=0.0) * factor
            by_bins = tl.load(grad_dfl + edge_row * grad_loss_row, mask=edge_there, other=0.0) * factor * 0.25
            to = grad + edge_row * grad_row + side * (BINS * grad_channel)
            _store_gradient(
                x, to, edges, by_box * slopes, by_bins, logits_channel, grad_channel, edge_there,
                BINS, BLOCK_BINS, DTYPE,
            )  # fmt: skip
    if partials is not None:
        tl.store(partials + tl.program_id(0), tl.sum(total_iou))
        tl.store(partials + tl.num_programs(0) + tl.program_id(0), tl.sum(total_dfl))


def _run(
    grad_losses: tuple[Tensor, Tensor] | None, outputs: native.Outputs | None, grad: Tensor | None, *args: Any
) -> None:
    a = native.DistributionBoxLoss(*args)
    rows, channels = a.logits.shape
    bins = channels // 4
    loss_iou, loss_dfl, boxes, quality = outputs or (None, None, None, None)
    grad_iou, grad_dfl = grad_losses or (None, None)
    logits_row, logits_channel = a.logits.stride()
    grad_row, grad_channel = (a.logits if grad is None else grad).stride()
    _triton.launch_loss(
        distribution_box_loss_kernel,
        a,
        {"loss_iou": loss_iou, "loss_dfl": loss_dfl},
        rows,
        _ROWS,
        boxes=boxes,
        quality=quality,
        grad_iou=grad_iou,
        grad_dfl=grad_dfl,
        grad=grad,
        most=_triton.bits(bins - 1 - a.target_margin),
        logits_row=logits_row,
        logits_channel=logits_channel,
        grad_row=grad_row,
        grad_channel=grad_channel,
        grad_loss_row=1 if a.mode == ROWS else 0,
        **_triton.bins_constants(bins),
        BLOCK=_ROWS,
    )


distribution_box_loss = functools.partial(native.distribution_box_loss, loss=native.DistributionBoxOp("triton_", _run))
