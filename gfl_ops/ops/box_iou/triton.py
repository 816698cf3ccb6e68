# mypy: disable-error-code="no-untyped-def"
"""The overlap of boxes on Triton: a thread for each pair."""

from __future__ import annotations

import functools

import triton
import triton.language as tl
from torch import Tensor

from ..._op import Op
from .. import _triton
from .._triton import number
from .._triton_math.iou import plain_iou
from ..iou_loss.triton import are_dense, load_boxes
from . import native

_ROWS = 256
_PAIRS = (16, 128)  # rows and columns of a tile of overlaps


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


def _box_iou(a: Tensor, b: Tensor, aligned: bool, eps: float) -> Tensor:
    iou = native.iou_like(a, b, aligned, eps)
    rows, cols = a.shape[0], b.shape[0]
    if iou.numel() == 0:
        return iou
    strides = (*a.stride(), *b.stride())
    constants = {"DENSE": are_dense(a, b), "BLOCK_ROWS": _ROWS, "DTYPE": _triton.compute_type(a)}
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


_box_iou_op = Op("triton_box_iou", native.ARGUMENTS, "Tensor", _box_iou, native.iou_like)

box_iou = functools.partial(native.box_iou, op=_box_iou_op)
