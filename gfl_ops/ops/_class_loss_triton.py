# mypy: disable-error-code="no-untyped-def"
"""Quality focal loss and sigmoid focal loss as a Triton kernel: a program takes tiles of whole rows.

A tile is walked in chunks of columns. With labels, the term of each row's own class is computed once a row and takes
the place of the negative one where the column is the label's.
"""

from __future__ import annotations

from collections.abc import Callable

import triton
import triton.language as tl
from torch import Tensor

from .. import _autograd
from .._reduce import ELEMENTS, Reduction
from . import _triton
from ._class_loss import ARGUMENTS, QUALITY_FOCAL_PROBABILITY
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
    pred, target, label, score, weight, grad_loss, grad, exponent, alpha,
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
                tl.load(label + row, mask=there, other=-1), pred + row * pred_row, pred_col,
                None if score is None else score + row, exponent, alpha, COLS, FORMULA, SQUARE, DTYPE,
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


def _strides(matrix: Tensor | None) -> tuple[int, int]:
    """(row, column), of fewer dimensions broadcast along those that are missing, columns first."""
    row, col = (0, 0) if matrix is None else (*matrix.stride(), 0, 0)[:2]
    return row, col


def _is_dense(matrix: Tensor | None) -> bool:
    return matrix is not None and matrix.is_contiguous()


def _run(
    grad_loss: Tensor | None,
    loss: Tensor | None,
    grad: Tensor | None,
    pred: Tensor,
    kind: int,
    scale: float,
    count: int,
    avg_factor: Tensor | None,
    target: Tensor | None,
    label: Tensor | None,
    score: Tensor | None,
    weight: Tensor | None,
    formula: int,
    exponent: float,
    alpha: float,
) -> None:
    rows, cols = pred.shape
    block_rows, block_cols = block_of(cols, pred.element_size(), formula, target is not None)
    _triton.launch_loss(
        class_loss_kernel,
        pred,
        (loss,),
        Reduction(kind, scale, count, avg_factor),
        rows,
        block_rows,
        pred,
        target,
        label,
        score,
        weight,
        grad_loss,
        grad,
        _triton.bits(exponent),
        _triton.bits(alpha),
        *_strides(pred),
        *_strides(target),
        *_strides(grad),
        *_strides(grad_loss),
        COLS=cols,
        FORMULA=formula,
        SQUARE=exponent == 2.0,
        WEIGHT_DIMS=0 if weight is None else weight.ndim,
        GRAD_LOSS_DIMS=0 if grad_loss is None else grad_loss.ndim,
        BY_ELEMENT=kind == ELEMENTS,
        PRED_DENSE=_is_dense(pred),
        TARGET_DENSE=_is_dense(target),
        GRAD_DENSE=_is_dense(grad),
        BLOCK_ROWS=block_rows,
        BLOCK_COLS=block_cols,
        DTYPE=_triton.compute_type(pred),
    )


_OPS = _autograd.register_loss("triton_class_loss", ARGUMENTS, _run, _triton.scale_in_place)


def class_loss(op: str) -> Callable[..., Tensor]:
    return _autograd.fused_loss(op, _OPS)
