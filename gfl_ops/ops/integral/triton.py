# mypy: disable-error-code="no-untyped-def"
"""The softmax expectation on Triton: a thread for each distribution, numbered as they lie in memory.

Where bins lie side by side (rows, channels-last maps) the four sides of a position are neighbours, and a gradient is
made in tiles of distributions and bins. Where positions do (maps), a tile is a run of them in one side's planes, and a
gradient is made bin by bin. A map's size is specialised on in one way alone: whether all planes begin where wide
accesses may, which is when every stride between planes is a multiple of UNIT = 16.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import _triton
from .._triton_math.elementary import exponential
from .._triton_math.softmax import bin_value, expectation_gradient, logit, shifted_logit, softmax_expectation
from . import native

_ROWS = 128


@triton.jit
def _place(tile, tiles_each, BLOCK: tl.constexpr, BINS_ADJOIN: tl.constexpr):
    """(batch, side, position, index within what the tiles share out)"""
    outer = tile // tiles_each
    index = (tile % tiles_each) * BLOCK + tl.arange(0, BLOCK)
    if BINS_ADJOIN:
        return outer, index % 4, index // 4, index
    else:
        return outer // 4, outer % 4, index, index


_SIZES = ["count", "tiles_each", "pred_batch", "pred_channel"]
_SIZES += ["result_batch", "result_side", "grad_batch", "grad_channel"]


@triton.jit(do_not_specialize=_SIZES)
def integral_kernel(
    pred, bin_values, result, grad, count, tiles_each,
    pred_batch, pred_channel, pred_length, result_batch, result_side, result_length,
    grad_batch, grad_channel, grad_length,
    BINS: tl.constexpr, UNROLL: tl.constexpr, BLOCK_BINS: tl.constexpr,
    UNIT: tl.constexpr, BINS_ADJOIN: tl.constexpr, BLOCK: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    count = count * UNIT
    pred_channel = 1 if BINS_ADJOIN else pred_channel * UNIT
    grad_channel = 1 if BINS_ADJOIN else grad_channel * UNIT
    tile = tl.program_id(0).to(tl.int64)
    batch, side, position, index = _place(tile, tiles_each, BLOCK, BINS_ADJOIN)
    there = index < count
    x = pred + batch * (pred_batch * UNIT) + side * (BINS * pred_channel) + position * pred_length
    result = result + batch * (result_batch * UNIT) + side * (result_side * UNIT) + position * result_length
    most, inverse_sum, expectation, _ = softmax_expectation(x, pred_channel, there, bin_values, BINS, UNROLL, DTYPE)
    if grad is None:
        tl.store(result, expectation.to(result.dtype.element_ty), mask=there)
    else:
        upstream = tl.load(result, mask=there, other=0.0).to(DTYPE)
        to = grad + batch * (grad_batch * UNIT) + side * (BINS * grad_channel) + position * grad_length
        if BINS_ADJOIN:
            for start in range(0, BINS, BLOCK_BINS):
                k = start + tl.arange(0, BLOCK_BINS)
                inside = there[:, None] & (k < BINS)[None, :]
                logits = tl.load(x[:, None] + (k * pred_channel)[None, :], mask=inside, other=0.0).to(DTYPE)
                e = exponential(shifted_logit(logits, most[:, None]))
                value = k.to(DTYPE) if bin_values is None else tl.load(bin_values + k, mask=k < BINS, other=0.0)
                slope = expectation_gradient(
                    e, value[None, :], inverse_sum[:, None], expectation[:, None], upstream[:, None]
                )
                tl.store(to[:, None] + (k * grad_channel)[None, :], slope.to(grad.dtype.element_ty), mask=inside)
        else:
            for k in tl.range(0, BINS, loop_unroll_factor=UNROLL):
                e = exponential(shifted_logit(logit(x, k, pred_channel, there, DTYPE), most))
                slope = expectation_gradient(e, bin_value(bin_values, k), inverse_sum, expectation, upstream)
                tl.store(to + k * grad_channel, slope.to(grad.dtype.element_ty), mask=there)


def _strides(tensor: Tensor) -> tuple[int, int, int]:
    """(batch, channel, length)"""
    if tensor.ndim == 2:
        return 0, tensor.stride(1), tensor.stride(0)
    batch, channel, _, length = tensor.stride()
    return batch, channel, length


def _run(pred: Tensor, bin_values: Tensor | None, bins: int, result: Tensor, grad: Tensor | None) -> None:
    if pred.numel() == 0:
        return
    batch, length = (1, pred.shape[0]) if pred.ndim == 2 else (pred.shape[0], pred.shape[2] * pred.shape[3])
    bins_adjoin = pred.stride(1) == 1
    outer, count = (batch, 4 * length) if bins_adjoin else (4 * batch, length)
    block = _ROWS if bins_adjoin else _ROWS * 16 // pred.element_size()
    tiles_each = _triton.cdiv(count, block)
    strides = [_strides(tensor) for tensor in (pred, result, pred if grad is None else grad)]
    between_planes = (count, *(stride for batch, channel, _ in strides for stride in (batch, channel)))
    unit = 1 if bins_adjoin or any(stride % 16 for stride in between_planes) else 16
    _triton.launch(
        integral_kernel,
        outer * tiles_each,
        pred,
        pred,
        bin_values,
        result,
        grad,
        count // unit,
        tiles_each,
        *(stride for batch, channel, length in strides for stride in (batch // unit, channel // unit, length)),
        **_triton.bins_constants(bins) | ({} if bins_adjoin else {"UNROLL": 4}),
        UNIT=unit,
        BINS_ADJOIN=bins_adjoin,
        BLOCK=block,
        DTYPE=_triton.compute_type(pred),
    )


def _forward(pred: Tensor, bin_values: Tensor | None, bins: int, keep: bool) -> tuple[Tensor, Tensor]:
    output = native.output_like(pred)
    _run(native.readable(pred), bin_values, bins, output, None)
    return output, native.slopes_like(pred, kept=False)


def _backward(grad_output: Tensor, pred: Tensor, bin_values: Tensor | None, bins: int) -> Tensor:
    pred = native.readable(pred)
    grad = torch.empty_like(pred)
    if grad_output.ndim == 4 and not native.map_is_flat(grad_output):
        grad_output = grad_output.contiguous()
    _run(pred, bin_values, bins, grad_output, grad)
    return grad


_OPS = native.ops_of(native.raw_ops("triton_", _forward, _backward, keeps=False))

integral = functools.partial(native.integral, ops=_OPS)
