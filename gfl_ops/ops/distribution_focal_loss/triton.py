# mypy: disable-error-code="no-untyped-def"
"""Distribution focal loss on Triton: a thread for each row of logits, a tile for their gradient."""

from __future__ import annotations

import functools
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..._op import LossOp, RawLoss
from .. import _triton
from .._triton import effective_scale, number
from .._triton_math.distribution_focal_loss import (
    dfl_forward,
    dfl_gradient,
    dfl_reweighted,
    dfl_target,
    dfl_target_between,
)
from .._triton_math.elementary import exponential
from .._triton_math.softmax import shifted_logit
from . import native

_ROWS = 128


@triton.jit(do_not_specialize=["scale", "first_bin", "rows", "tiles", "grad_loss_row"])
def distribution_focal_loss_kernel(
    losses, partials, avg_factor, scale, rows, tiles,
    logits, target, bin_values, left_weight, right_weight, weight, grad_loss, grad, first_bin,
    logits_row, logits_bin, grad_row, grad_bin, grad_loss_row,
    BINS: tl.constexpr, UNROLL: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_BINS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    scale = effective_scale(scale, avg_factor, DTYPE)
    first_bin = number(first_bin, DTYPE)
    total = tl.zeros([BLOCK_ROWS], tl.float64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        there = row < rows
        y = tl.load(target + row, mask=there, other=0.0)
        if bin_values is None:  # noqa: SIM108 - Triton's choice of a constant yields no tuple
            near = dfl_target(y, first_bin, BINS)
        else:
            near = dfl_target_between(y, bin_values, BINS, UNROLL)
        if left_weight is not None:
            left = tl.load(left_weight + row, mask=there, other=0.0)
            near = dfl_reweighted(near, left, tl.load(right_weight + row, mask=there, other=0.0))
        x = logits + row * logits_row
        loss, most, inverse_sum, _ = dfl_forward(x, logits_bin, there, near, BINS, UNROLL, DTYPE)
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
            near = (near[0][:, None], near[1][:, None], near[2][:, None], near[3][:, None])
            for start in range(0, BINS, BLOCK_BINS):
                k = (start + tl.arange(0, BLOCK_BINS))[None, :]
                inside = there[:, None] & (k < BINS)
                z = tl.load(x[:, None] + k * logits_bin, mask=inside, other=0.0).to(DTYPE)
                e = exponential(shifted_logit(z, most[:, None]))
                slope = dfl_gradient(e, k, near, inverse_sum[:, None], upstream[:, None])
                to = grad + (row * grad_row)[:, None] + k * grad_bin
                tl.store(to, slope.to(grad.dtype.element_ty), mask=inside)
    if partials is not None:
        tl.store(partials + tl.program_id(0), tl.sum(total))


def _run(grad_loss: Tensor | None, loss: Tensor | None, grad: Tensor | None, *args: Any) -> None:
    a = native.DistributionFocalLoss(*args)
    rows, bins = a.logits.shape
    logits_row, logits_bin = a.logits.stride()
    grad_row, grad_bin = (a.logits if grad is None else grad).stride()
    _triton.launch_loss(
        distribution_focal_loss_kernel,
        a,
        {"losses": loss},
        rows,
        _ROWS,
        grad_loss=grad_loss,
        grad=grad,
        logits_row=logits_row,
        logits_bin=logits_bin,
        grad_row=grad_row,
        grad_bin=grad_bin,
        grad_loss_row=_triton.vector_stride(grad_loss),
        BLOCK_ROWS=_ROWS,
        **_triton.bins_constants(bins),
    )


_RAW = RawLoss("triton_distribution_focal_loss", native.DistributionFocalLoss, _run, _triton.scale_gradient)

distribution_focal_loss = functools.partial(
    native.distribution_focal_loss, loss=LossOp("distribution_focal_loss", _RAW)
)
