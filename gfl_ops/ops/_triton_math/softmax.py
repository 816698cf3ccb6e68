# mypy: disable-error-code="no-untyped-def"
"""csrc/math/softmax.h: softmax over the bins of distributions, a thread for each.

`x` points at the first logit of each distribution, the next is `step` further; `there` says which distributions exist.
Nothing is kept of the logits but what a gradient needs to start from them again: they are still in the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import exponential


@triton.jit
def logit(x, k, step, there, DTYPE: tl.constexpr):
    return tl.load(x + k * step, mask=there, other=0.0).to(DTYPE)


@triton.jit
def shifted_logit(x, most):
    """A maximum that is infinite is 0 as well, so that infinite logits take their limit."""
    return tl.where(x == most, 0.0, x - most)


@triton.jit
def bins_maximum(x, step, there, BINS: tl.constexpr, UNROLL: tl.constexpr, DTYPE: tl.constexpr):
    """A NaN need not come through: it makes the sum NaN."""
    most = logit(x, 0, step, there, DTYPE)
    for k in tl.range(1, BINS, loop_unroll_factor=UNROLL):
        most = tl.maximum(most, logit(x, k, step, there, DTYPE))
    return most


@triton.jit
def bin_value(values, k):
    """Values given, or 0, 1, 2, ..."""
    if values is None:
        return k * 1.0
    else:
        return tl.load(values + k)


@triton.jit
def softmax_expectation(x, step, there, values, BINS: tl.constexpr, UNROLL: tl.constexpr, DTYPE: tl.constexpr):
    """(maximum, 1 / sum e, sum e v / sum e, sum e)"""
    most = bins_maximum(x, step, there, BINS, UNROLL, DTYPE)
    total = tl.zeros_like(most)
    weighted = tl.zeros_like(most)
    for k in tl.range(0, BINS, loop_unroll_factor=UNROLL):
        e = exponential(shifted_logit(logit(x, k, step, there, DTYPE), most))
        total += e
        weighted += e * bin_value(values, k)
    inverse_sum = 1.0 / total
    return most, inverse_sum, weighted * inverse_sum, total


@triton.jit
def expectation_gradient(e, value, inverse_sum, expectation, upstream):
    return e * ((upstream * inverse_sum) * (value - expectation))
