# mypy: disable-error-code="no-untyped-def"
"""The statistics of edge distributions on Triton: a tile of distributions and all of their bins at a time."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import _triton
from .._triton_math.distribution_statistics import highest, softmax_of_rows
from ..integral.native import readable, sizes
from . import native

_TILE = 512  # logits
_SIZES = ["rows", "length", "logits_batch", "logits_channel", "logits_length"]
_SIZES += ["output_batch", "output_channel", "output_length", "grad_batch", "grad_channel", "grad_length"]


@triton.jit(do_not_specialize=_SIZES)
def distribution_statistics_kernel(
    logits, output, grad, rows, length,
    logits_batch, logits_channel, logits_length, output_batch, output_channel, output_length,
    grad_batch, grad_channel, grad_length,
    BINS: tl.constexpr, TOPK: tl.constexpr, BLOCK_BINS: tl.constexpr, BLOCK_ROWS: tl.constexpr,
    SIDES_INNERMOST: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    logits_channel = 1 if SIDES_INNERMOST else logits_channel
    grad_channel = 1 if SIDES_INNERMOST else grad_channel
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    there = row < rows
    if SIDES_INNERMOST:
        side, position = row % 4, row // 4 % length
    else:
        side, position = row // length % 4, row % length
    batch = row // (4 * length)
    k = tl.arange(0, BLOCK_BINS)[None, :]
    inside = there[:, None] & (k < BINS)
    start = logits + batch * logits_batch + side * BINS * logits_channel + position * logits_length
    x = tl.load(start[:, None] + k * logits_channel, mask=inside, other=0.0).to(DTYPE)
    e, inverse_sum = softmax_of_rows(x, k < BINS)
    at = output + batch * output_batch + side * (TOPK + 1) * output_channel + position * output_length

    is_left = tl.broadcast_to(k < BINS, x.shape)  # the bins that have no rank yet
    total = tl.zeros_like(inverse_sum)
    share = tl.zeros_like(x)
    of_mean = total
    if grad is not None:
        of_mean = tl.load(at + TOPK * output_channel, mask=there, other=0.0).to(DTYPE) / TOPK
    for rank in range(TOPK):
        chosen = highest(x, k, is_left, BLOCK_BINS)
        p = tl.sum(tl.where(chosen, e, 0.0), 1) * inverse_sum
        to = at + rank * output_channel
        if grad is None:
            tl.store(to, p.to(output.dtype.element_ty), mask=there)
            total += p
        else:
            upstream = tl.load(to, mask=there, other=0.0).to(DTYPE) + of_mean
            share = tl.where(chosen, upstream[:, None], share)
            total += upstream * p
        is_left = is_left & ~chosen
    if grad is None:
        tl.store(at + TOPK * output_channel, (total / TOPK).to(output.dtype.element_ty), mask=there)
    else:
        slope = e * inverse_sum[:, None] * (share - total[:, None])
        start = grad + batch * grad_batch + side * BINS * grad_channel + position * grad_length
        tl.store(start[:, None] + k * grad_channel, slope.to(grad.dtype.element_ty), mask=inside)


def _strides(tensor: Tensor) -> tuple[int, int, int]:
    """(batch, channel, position)"""
    if tensor.ndim == 2:
        return 0, tensor.stride(1), tensor.stride(0)
    batch, channel, _, position = tensor.stride()
    return batch, channel, position


def _run(logits: Tensor, topk: int, output: Tensor, grad: Tensor | None) -> None:
    if logits.numel() == 0:
        return
    bins = logits.shape[1] // 4
    batch, _, length = sizes(logits)
    block_bins = _triton.power_of_two(bins)
    block_rows = max(_TILE // block_bins, 1)
    rows = batch * 4 * length
    strides = [stride for x in (logits, output, logits if grad is None else grad) for stride in _strides(x)]
    _triton.launch(
        distribution_statistics_kernel,
        _triton.cdiv(rows, block_rows),
        logits,
        logits,
        output,
        grad,
        rows,
        length,
        *strides,
        BINS=bins,
        TOPK=topk,
        BLOCK_BINS=block_bins,
        BLOCK_ROWS=block_rows,
        SIDES_INNERMOST=logits.stride(1) == 1,
        DTYPE=_triton.compute_type(logits),
    )


def _forward(logits: Tensor, topk: int) -> Tensor:
    output = native.output_like(logits, topk)
    _run(readable(logits), topk, output, None)
    return output


def _backward(grad_output: Tensor, logits: Tensor, topk: int) -> Tensor:
    logits = readable(logits)
    grad = torch.empty_like(logits)
    _run(logits, topk, readable(grad_output), grad)
    return grad


distribution_statistics = functools.partial(
    native.distribution_statistics, op=native.op_of("triton_", _forward, _backward)
)
