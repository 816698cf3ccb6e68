# mypy: disable-error-code="no-untyped-def"
"""The divergence of distributions on Triton: a thread for each row of both, a tile for the student's gradient."""

from __future__ import annotations

import functools
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..._op import LossOp, RawLoss
from .. import _triton
from .._triton import effective_scale, number
from .._triton_math.distribution_kl_loss import kl_forward
from .._triton_math.elementary import exponential
from .._triton_math.softmax import shifted_logit
from . import native

_ROWS = 128


@triton.jit
def _exponentials(x, offsets, inside, most, inverse_temperature, DTYPE: tl.constexpr):
    logits = tl.load(x[:, None] + offsets, mask=inside, other=0.0).to(DTYPE)
    return exponential(shifted_logit(logits, most[:, None]) * inverse_temperature)


@triton.jit(do_not_specialize=["scale", "temperature", "rows", "tiles", "grad_loss_row"])
def distribution_kl_loss_kernel(
    losses, partials, avg_factor, scale, rows, tiles, logits, teacher, temperature, weight, grad_loss, grad,
    logits_row, logits_bin, teacher_row, teacher_bin, grad_row, grad_bin, grad_loss_row,
    BINS: tl.constexpr, UNROLL: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_BINS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    scale = effective_scale(scale, avg_factor, DTYPE)
    inverse_temperature = 1.0 / number(temperature, DTYPE)
    total = tl.zeros([BLOCK_ROWS], tl.float64)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = tl.cast(tile, tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        there = row < rows
        x = logits + row * logits_row
        y = teacher + row * teacher_row
        loss, most, inverse_sum, teacher_most, teacher_inverse_sum = kl_forward(
            x, logits_bin, y, teacher_bin, there, inverse_temperature, BINS, UNROLL, DTYPE
        )
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
            upstream = upstream * inverse_temperature
            for start in range(0, BINS, BLOCK_BINS):
                k = (start + tl.arange(0, BLOCK_BINS))[None, :]
                inside = there[:, None] & (k < BINS)
                e = _exponentials(x, k * logits_bin, inside, most, inverse_temperature, DTYPE)
                wanted = _exponentials(y, k * teacher_bin, inside, teacher_most, inverse_temperature, DTYPE)
                distance = e * inverse_sum[:, None] - wanted * teacher_inverse_sum[:, None]
                to = grad + (row * grad_row)[:, None] + k * grad_bin
                tl.store(to, (upstream[:, None] * distance).to(grad.dtype.element_ty), mask=inside)
    if partials is not None:
        tl.store(partials + tl.program_id(0), tl.sum(total))


def _run(grad_loss: Tensor | None, loss: Tensor | None, grad: Tensor | None, *args: Any) -> None:
    a = native.DistributionKLLoss(*args)
    rows, bins = a.logits.shape
    logits_row, logits_bin = a.logits.stride()
    teacher_row, teacher_bin = a.teacher.stride()
    grad_row, grad_bin = (a.logits if grad is None else grad).stride()
    _triton.launch_loss(
        distribution_kl_loss_kernel,
        a,
        {"losses": loss},
        rows,
        _ROWS,
        grad_loss=grad_loss,
        grad=grad,
        logits_row=logits_row,
        logits_bin=logits_bin,
        teacher_row=teacher_row,
        teacher_bin=teacher_bin,
        grad_row=grad_row,
        grad_bin=grad_bin,
        grad_loss_row=_triton.vector_stride(grad_loss),
        BLOCK_ROWS=_ROWS,
        **_triton.bins_constants(bins),
    )


_RAW = RawLoss("triton_distribution_kl_loss", native.DistributionKLLoss, _run, _triton.scale_gradient)

distribution_kl_loss = functools.partial(native.distribution_kl_loss, loss=LossOp("distribution_kl_loss", _RAW))
