# mypy: disable-error-code="no-untyped-def"
"""The IoU family on Triton: a thread for each pair of boxes, which moves each box whole."""

from __future__ import annotations

import functools
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..._op import LossOp, RawLoss
from .. import _triton
from .._triton import effective_scale, number
from .._triton_math.iou import box_loss
from . import native

_ROWS = 256


@triton.jit
def sides_of(edges):
    """Four vectors from a tile whose rows are boxes: x1, y1, x2, y2, or left, top, right, bottom."""
    xs, ys = tl.split(tl.reshape(edges, [edges.numel // 4, 2, 2]))
    x1, x2 = tl.split(xs)
    y1, y2 = tl.split(ys)
    return x1, y1, x2, y2


@triton.jit
def of_sides(box):
    """The way back: each box's four values one after the other."""
    corners = tl.join(tl.join(box[0], box[2]), tl.join(box[1], box[3]))
    return tl.reshape(corners, [corners.numel])


@triton.jit
def _corners(boxes, row, row_stride, col_stride, DENSE: tl.constexpr):
    """Where the corners of boxes lie; of dense ones the compiler knows that each is aligned."""
    if DENSE:
        row_stride = 4
        col_stride = 1
    return boxes + (row * row_stride)[:, None] + (tl.arange(0, 4) * col_stride)[None, :]


@triton.jit
def load_boxes(boxes, row, row_stride, col_stride, there, DENSE: tl.constexpr, DTYPE: tl.constexpr):
    """(x1, y1, x2, y2)"""
    places = _corners(boxes, row, row_stride, col_stride, DENSE)
    return sides_of(tl.load(places, mask=there[:, None], other=0.0).to(DTYPE))


@triton.jit
def store_boxes(boxes, row, row_stride, col_stride, there, box, DENSE: tl.constexpr):
    size: tl.constexpr = row.shape[0]
    corners = tl.reshape(of_sides(box), [size, 4]).to(boxes.dtype.element_ty)
    mask = tl.broadcast_to(there[:, None], [size, 4])
    tl.store(_corners(boxes, row, row_stride, col_stride, DENSE), corners, mask=mask)


@triton.jit(do_not_specialize=["scale", "eps", "rows", "tiles", "grad_loss_row"])
def iou_loss_kernel(
    losses, partials, avg_factor, scale, rows, tiles,
    pred, target, weight, grad_loss, grad, eps,
    pred_row, pred_col, target_row, target_col, grad_row, grad_col, grad_loss_row,
    IOU_KIND: tl.constexpr, TRANSFORM: tl.constexpr, EPS_RULE: tl.constexpr, ALPHA_RULE: tl.constexpr,
    DENSE: tl.constexpr, BLOCK_ROWS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    scale = effective_scale(scale, avg_factor, DTYPE)
    eps = number(eps, DTYPE)
    total = tl.zeros([BLOCK_ROWS], tl.float64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        there = row < rows
        p = load_boxes(pred, row, pred_row, pred_col, there, DENSE, DTYPE)
        t = load_boxes(target, row, target_row, target_col, there, DENSE, DTYPE)
        loss, _, slope = box_loss(p, t, eps, IOU_KIND, TRANSFORM, EPS_RULE, ALPHA_RULE)
        upstream = tl.zeros_like(loss) + scale
        if weight is not None:
            row_weight = tl.load(weight + row, mask=there, other=0.0)
            loss = loss * row_weight
            upstream = upstream * row_weight
        if losses is not None:
            tl.store(losses + row, loss * scale, mask=there)
        if partials is not None:
            total += tl.where(there, loss, 0.0).to(tl.float64)
        if grad is not None:
            if grad_loss is not None:
                upstream = upstream * tl.load(grad_loss + row * grad_loss_row, mask=there, other=0.0)
            slope = (slope[0] * upstream, slope[1] * upstream, slope[2] * upstream, slope[3] * upstream)
            store_boxes(grad, row, grad_row, grad_col, there, slope, DENSE)
    if partials is not None:
        tl.store(partials + tl.program_id(0), tl.sum(total))


def are_dense(*boxes: Tensor) -> bool:
    return all(x.is_contiguous() for x in boxes)


def _run(grad_loss: Tensor | None, loss: Tensor | None, grad: Tensor | None, *args: Any) -> None:
    a = native.IouLoss(*args)
    _triton.launch_loss(
        iou_loss_kernel,
        a,
        {"losses": loss},
        a.pred.shape[0],
        _ROWS,
        grad_loss=grad_loss,
        grad=grad,
        **_triton.matrix_strides(pred=a.pred, target=a.target, grad=a.pred if grad is None else grad),
        grad_loss_row=_triton.vector_stride(grad_loss),
        DENSE=are_dense(a.pred, a.target),
        BLOCK_ROWS=_ROWS,
    )


_RAW = RawLoss("triton_iou_loss", native.IouLoss, _run, _triton.scale_gradient)

iou_loss = functools.partial(native.iou_loss, loss=LossOp("iou_loss", _RAW))
