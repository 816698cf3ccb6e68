# mypy: disable-error-code="no-untyped-def"
"""The dense classification losses as a Triton kernel: a program takes tiles of whole rows.

A tile is walked in chunks of columns. With labels, the term of each row's own class is computed once a row and takes
the place of the negative one where the column is the label's.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .._arguments import ELEMENTS
from .._op import RawLoss
from . import _triton
from ._class_loss import QUALITY_FOCAL_PROBABILITY, ClassLoss
from ._triton import effective_scale, number
from ._triton_math.class_loss import dense, negative, positive

TILE = 1024  # elements; fewer where each takes many registers, see block_of


@triton.jit
def _factor(values, row, col, row_stride, col_stride, there, inside, DIMS: tl.constexpr):
    """One value, one a row, or one an element, as something that broadcasts with the chunk."""
    if DIMS == 0:
        return tl.load(values)
    elif DIMS == 1:
        return tl.load(values + row * row_stride, mask=there, other=0.0)[:, None]
    else:
        return tl.load(values + (row * row_stride)[:, None] + (col * col_stride)[None, :], mask=inside, other=0.0)


@triton.jit
def own_class(
    label, x, step, score, exponent, alpha,
    COLS: tl.constexpr, FORMULA: tl.constexpr, SQUARE: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """(label, or -1 of a background row; its term's loss and gradient). `x` points at the first of each row's logits,
    the next is `step` further; `score` at its score, which is not looked at in a background row."""
    is_positive = (label >= 0) & (label < COLS)
    own = tl.where(is_positive, label, -1).to(tl.int32)
    logits = tl.load(x + own.to(tl.int64) * step, mask=is_positive, other=0.0).to(DTYPE)
    quality = tl.zeros_like(logits) if score is None else tl.load(score, mask=is_positive, other=0.0)
    loss, grad = positive(logits, quality, exponent, alpha, FORMULA, SQUARE)
    return own, loss, grad


@triton.jit
def labelled(
    x, start, own, own_loss, own_grad, exponent, alpha,
    BLOCK_COLS: tl.constexpr, FORMULA: tl.constexpr, SQUARE: tl.constexpr,
):  # fmt: skip
    """A chunk's (loss, gradient) with each row's own class as it is. Its x are as they were loaded, and stand in the
    columns from `start` on."""
    loss, slope = negative(x, exponent, alpha, FORMULA, SQUARE)
    mine = (own - start)[:, None] == tl.arange(0, BLOCK_COLS)[None, :]
    return tl.where(mine, own_loss[:, None], loss), tl.where(mine, own_grad[:, None], slope)


@triton.jit(do_not_specialize=["scale", "exponent", "alpha", "rows", "tiles", "grad_loss_row", "grad_loss_col"])
def class_loss_kernel(
    losses, partials, avg_factor, scale, rows, tiles,
    pred, target, labels, scores, weight, class_weights, grad_loss, grad, exponent, alpha,
    pred_row, pred_col, target_row, target_col, grad_row, grad_col, grad_loss_row, grad_loss_col,
    COLS: tl.constexpr, FORMULA: tl.constexpr, SQUARE: tl.constexpr, WEIGHT_DIMS: tl.constexpr,
    GRAD_LOSS_DIMS: tl.constexpr,
    BY_ELEMENT: tl.constexpr, PRED_DENSE: tl.constexpr, TARGET_DENSE: tl.constexpr, GRAD_DENSE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    # The strides of a dense matrix are known to the compiler, and with them the alignment of its rows.
    if PRED_DENSE:
        pred_row = COLS
    if TARGET_DENSE:
        target_row = COLS
    if GRAD_DENSE:
        grad_row = COLS
    scale = effective_scale(scale, avg_factor, DTYPE)
    exponent = number(exponent, DTYPE)
    alpha = number(alpha, DTYPE)
    total = tl.zeros([BLOCK_ROWS], tl.float64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        there = row < rows
        if target is None:
            own, own_loss, own_grad = own_class(
                tl.load(labels + row, mask=there, other=-1), pred + row * pred_row, pred_col,
                None if scores is None else scores + row, exponent, alpha, COLS, FORMULA, SQUARE, DTYPE,
            )  # fmt: skip
        tile_loss = tl.zeros([BLOCK_ROWS, BLOCK_COLS], DTYPE)
        for start in range(0, COLS, BLOCK_COLS):
            col = start + tl.arange(0, BLOCK_COLS)
            inside = tl.broadcast_to(there[:, None], [BLOCK_ROWS, BLOCK_COLS])
            if COLS % BLOCK_COLS != 0:
                inside = inside & (col < COLS)[None, :]
            x = tl.load(pred + (row * pred_row)[:, None] + (col * pred_col)[None, :], mask=inside, other=0.0)
            if target is None:
                loss, slope = labelled(x, start, own, own_loss, own_grad, exponent, alpha, BLOCK_COLS, FORMULA, SQUARE)
            else:
                t = tl.load(target + (row * target_row)[:, None] + (col * target_col)[None, :], mask=inside, other=0.0)
                loss, slope = dense(x.to(DTYPE), t.to(DTYPE), exponent, alpha, FORMULA, SQUARE)
            if weight is not None:
                factor = _factor(weight, row, col, COLS if WEIGHT_DIMS == 2 else 1, 1, there, inside, WEIGHT_DIMS)
                loss = loss * factor
                slope = slope * factor
            if class_weights is not None:
                of_class = tl.load(class_weights + col, mask=col < COLS, other=0.0)[None, :]
                loss = loss * of_class
                slope = slope * of_class
            if losses is not None and BY_ELEMENT:
                tl.store(losses + (row * COLS)[:, None] + col[None, :], loss * scale, mask=inside)
            if grad is not None:
                slope = slope * scale
                if grad_loss is not None:
                    slope = slope * _factor(
                        grad_loss, row, col, grad_loss_row, grad_loss_col, there, inside, GRAD_LOSS_DIMS
                    )
                to = grad + (row * grad_row)[:, None] + (col * grad_col)[None, :]
                tl.store(to, slope.to(grad.dtype.element_ty), mask=inside)
            tile_loss += tl.where(inside, loss, 0.0)
        if losses is not None and not BY_ELEMENT:
            tl.store(losses + row, tl.sum(tile_loss, 1) * scale, mask=there)
        if partials is not None:
            total += tl.sum(tile_loss, 1).to(tl.float64)
    if partials is not None:
        tl.store(partials + tl.program_id(0), tl.sum(total))


def block_of(cols: int, value_bytes: int, formula: int, dense: bool) -> tuple[int, int]:
    """Rows and columns of a chunk: 16 to 64 bytes of a row, whatever leaves the fewest columns empty."""
    widths = [width // value_bytes for width in (64, 32, 16)]
    width = min(widths, key=lambda width: _triton.cdiv(cols, width) * width)
    width = min(width, _triton.power_of_two(max(cols, 1)))
    heavy = value_bytes == 8 or (value_bytes == 4 and formula == QUALITY_FOCAL_PROBABILITY)
    parts = 4 if value_bytes == 8 and dense else 2 if heavy else 1
    return TILE // parts // width, width


def _is_dense(matrix: Tensor | None) -> bool:
    return matrix is not None and matrix.is_contiguous()


def _run(grad_loss: Tensor | None, loss: Tensor | None, grad: Tensor | None, *args: Any) -> None:
    a = ClassLoss(*args)
    rows, cols = a.pred.shape
    block_rows, block_cols = block_of(cols, a.pred.element_size(), a.formula, a.target is not None)
    _triton.launch_loss(
        class_loss_kernel,
        a,
        {"losses": loss},
        rows,
        block_rows,
        grad_loss=grad_loss,
        grad=grad,
        **_triton.matrix_strides(pred=a.pred, target=a.target, grad=grad, grad_loss=grad_loss),
        COLS=cols,
        SQUARE=a.exponent == 2.0,
        WEIGHT_DIMS=0 if a.weight is None else a.weight.ndim,
        GRAD_LOSS_DIMS=0 if grad_loss is None else grad_loss.ndim,
        BY_ELEMENT=a.mode == ELEMENTS,
        PRED_DENSE=_is_dense(a.pred),
        TARGET_DENSE=_is_dense(a.target),
        GRAD_DENSE=_is_dense(grad),
        BLOCK_ROWS=block_rows,
        BLOCK_COLS=block_cols,
    )


CLASS_LOSS = RawLoss("triton_class_loss", ClassLoss, _run, _triton.scale_gradient)
