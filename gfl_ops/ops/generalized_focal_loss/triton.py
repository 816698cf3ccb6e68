# mypy: disable-error-code="no-untyped-def"
"""The unified generalized focal loss on Triton, element by element."""

from __future__ import annotations

import functools
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .. import _triton
from .._triton import effective_scale, number
from .._triton_math.generalized_focal_loss import generalized_focal_term
from . import native

_BLOCK = 1024


@triton.jit
def _entry(values, i, step, mask, DTYPE: tl.constexpr):
    """A vector's entries, or the one value that all share (step 0)."""
    return tl.load(values + i * step, mask=mask).to(DTYPE)


@triton.jit
def _tile(
    p_left, p_right, y, y_left, y_right, weight, grad_loss, losses, grad_left, grad_right,
    i, mask, scale, beta, y_step, y_left_step, y_right_step, weight_step, grad_loss_step,
    SQUARE: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    loss, slope_left, slope_right = generalized_focal_term(
        _entry(p_left, i, 1, mask, DTYPE),
        _entry(p_right, i, 1, mask, DTYPE),
        _entry(y, i, y_step, mask, DTYPE),
        _entry(y_left, i, y_left_step, mask, DTYPE),
        _entry(y_right, i, y_right_step, mask, DTYPE),
        beta,
        SQUARE,
    )
    upstream = tl.zeros_like(loss) + scale
    if weight is not None:
        by = _entry(weight, i, weight_step, mask, DTYPE)
        loss = loss * by
        upstream = upstream * by
    if losses is not None:
        tl.store(losses + i, loss * scale, mask=mask)
    if grad_left is not None:
        upstream = upstream * _entry(grad_loss, i, grad_loss_step, mask, DTYPE)
        tl.store(grad_left + i, (slope_left * upstream).to(grad_left.dtype.element_ty), mask=mask)
        tl.store(grad_right + i, (slope_right * upstream).to(grad_right.dtype.element_ty), mask=mask)
    return loss


@triton.jit(do_not_specialize=["scale", "beta", "rows", "tiles", "grad_loss_step"])
def generalized_focal_loss_kernel(
    losses, partials, avg_factor, scale, rows, tiles,
    p_left, p_right, y, y_left, y_right, weight, grad_loss, grad_left, grad_right, beta,
    y_step, y_left_step, y_right_step, weight_step, grad_loss_step,
    SQUARE: tl.constexpr, BLOCK: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    scale = effective_scale(scale, avg_factor, DTYPE)
    beta = number(beta, DTYPE)
    total = tl.zeros([BLOCK], tl.float64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        start = tl.cast(tile, tl.int64) * BLOCK
        i = start + tl.arange(0, BLOCK)
        if start + BLOCK <= rows:  # no mask, so that accesses are wide whatever the size
            loss = _tile(
                p_left, p_right, y, y_left, y_right, weight, grad_loss, losses, grad_left, grad_right,
                i, None, scale, beta, y_step, y_left_step, y_right_step, weight_step, grad_loss_step, SQUARE, DTYPE,
            )  # fmt: skip
        else:
            loss = _tile(
                p_left, p_right, y, y_left, y_right, weight, grad_loss, losses, grad_left, grad_right,
                i, i < rows, scale, beta, y_step, y_left_step, y_right_step, weight_step, grad_loss_step, SQUARE, DTYPE,
            )  # fmt: skip
        total += tl.where(i < rows, loss, 0.0).to(tl.float64)
    if partials is not None:
        tl.store(partials + tl.program_id(0), tl.sum(total))


def _run(grad_loss: Tensor | None, loss: Tensor | None, grads: tuple[Any, Any], *args: Any) -> None:
    a = native.GeneralizedFocalLoss(*args)
    vectors = {"y": a.y, "y_left": a.y_left, "y_right": a.y_right, "weight": a.weight, "grad_loss": grad_loss}
    _triton.launch_loss(
        generalized_focal_loss_kernel,
        a,
        {"losses": loss},
        a.p_left.numel(),
        _BLOCK,
        grad_loss=grad_loss,
        grad_left=grads[0],
        grad_right=grads[1],
        **{f"{name}_step": _triton.vector_stride(vector) for name, vector in vectors.items()},
        SQUARE=a.beta == 2.0,
        BLOCK=_BLOCK,
    )


_LOSS = native.GeneralizedFocalOp("triton_", _run)

generalized_focal_loss = functools.partial(native.generalized_focal_loss, loss=_LOSS)
