# mypy: disable-error-code="no-untyped-def"
"""The IoU family on Triton: a thread for each pair of boxes, which moves each box whole."""

from __future__ import annotations

import functools

import triton
import triton.language as tl
from torch import Tensor

from ... import _autograd
from ..._library import register
from ..._reduce import Reduction
from .. import _triton
from .._triton import effective_scale, number
from .._triton_math.iou import box_loss, plain_iou
from . import native

_ROWS = 256
_PAIRS = (16, 128)  # rows and columns of a tile of overlaps


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
    KIND: tl.constexpr, TRANSFORM: tl.constexpr, EPS_RULE: tl.constexpr,
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
        loss, _, slope = box_loss(p, t, eps, KIND, TRANSFORM, EPS_RULE)
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


def _are_dense(*boxes: Tensor) -> bool:
    return all(x.is_contiguous() for x in boxes)


def _run(
    grad_loss: Tensor | None,
    loss: Tensor | None,
    grad: Tensor | None,
    pred: Tensor,
    kind: int,
    scale: float,
    count: int,
    avg_factor: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    iou_kind: int,
    transform: int,
    eps_rule: int,
    eps: float,
) -> None:
    _triton.launch_loss(
        iou_loss_kernel,
        pred,
        (loss,),
        Reduction(kind, scale, count, avg_factor),
        pred.shape[0],
        _ROWS,
        pred,
        target,
        weight,
        grad_loss,
        grad,
        _triton.bits(eps),
        *pred.stride(),
        *target.stride(),
        *(pred if grad is None else grad).stride(),
        _triton.vector_stride(grad_loss),
        KIND=iou_kind,
        TRANSFORM=transform,
        EPS_RULE=eps_rule,
        DENSE=_are_dense(pred, target),
        BLOCK_ROWS=_ROWS,
        DTYPE=_triton.compute_type(pred),
    )


_OPS = _autograd.register_loss("triton_iou_loss", native.ARGUMENTS, _run, _triton.scale_in_place)

iou_loss = functools.partial(native.iou_loss, fused=_autograd.fused_loss("iou_loss", _OPS))


@triton.jit(do_not_specialize=["eps", "rows"])
def aligned_iou_kernel(
    a, b, iou, eps, rows, a_row, a_col, b_row, b_col,
    DENSE: tl.constexpr, BLOCK_ROWS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    there = row < rows
    p = load_boxes(a, row, a_row, a_col, there, DENSE, DTYPE)
    t = load_boxes(b, row, b_row, b_col, there, DENSE, DTYPE)
    tl.store(iou + row, plain_iou(p, t, number(eps, DTYPE)), mask=there)


@triton.jit(do_not_specialize=["eps", "rows", "cols", "column_tiles"])
def pairwise_iou_kernel(
    a, b, iou, eps, rows, cols, column_tiles, a_row, a_col, b_row, b_col,
    DENSE: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0).to(tl.int64)
    row = tile // column_tiles * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    col = tile % column_tiles * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    p = load_boxes(a, row, a_row, a_col, row < rows, DENSE, DTYPE)
    t = load_boxes(b, col, b_row, b_col, col < cols, DENSE, DTYPE)
    p = (p[0][:, None], p[1][:, None], p[2][:, None], p[3][:, None])
    t = (t[0][None, :], t[1][None, :], t[2][None, :], t[3][None, :])
    inside = (row < rows)[:, None] & (col < cols)[None, :]
    tl.store(iou + (row * cols)[:, None] + col[None, :], plain_iou(p, t, number(eps, DTYPE)), mask=inside)


def _overlaps(a: Tensor, b: Tensor, aligned: bool, eps: float) -> Tensor:
    iou = native.overlaps_like(a, b, aligned)
    rows, cols = a.shape[0], b.shape[0]
    if iou.numel() == 0:
        return iou
    strides = (*a.stride(), *b.stride())
    constants = {"DENSE": _are_dense(a, b), "BLOCK_ROWS": _ROWS, "DTYPE": _triton.compute_type(a)}
    if aligned:
        args = (a, b, iou, _triton.bits(eps), rows, *strides)
        _triton.launch(aligned_iou_kernel, _triton.cdiv(rows, _ROWS), a, *args, **constants)
    else:
        block_rows, block_cols = _PAIRS
        column_tiles = _triton.cdiv(cols, block_cols)
        args = (a, b, iou, _triton.bits(eps), rows, cols, column_tiles, *strides)
        _triton.launch(
            pairwise_iou_kernel,
            _triton.cdiv(rows, block_rows) * column_tiles,
            a,
            *args,
            **constants | {"BLOCK_ROWS": block_rows, "BLOCK_COLS": block_cols},
        )
    return iou


_overlaps_op = register(
    "triton_box_iou(Tensor a, Tensor b, bool aligned, float eps) -> Tensor",
    _overlaps,
    lambda a, b, aligned, eps: native.overlaps_like(a, b, aligned),
)

box_iou = functools.partial(native.box_iou, overlaps=_overlaps_op)
