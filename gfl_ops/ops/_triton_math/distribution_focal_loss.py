# mypy: disable-error-code="no-untyped-def"
"""csrc/math/distribution_focal_loss.h: cross entropy on the two bins around a target, weighted by nearness.

A target is (left, right, left_weight, right_weight); bins are whole numbers in int32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import logarithm, quotient
from .softmax import logit, shifted_logit, softmax_expectation


@triton.jit
def nan_unless(inside):
    return tl.where(inside, 0.0, float("nan"))


@triton.jit
def dfl_target(y, first_bin, BINS: tl.constexpr):
    """A target outside the bins, or NaN, has NaN weights and indices that are safe to read."""
    position = y - first_bin
    inside = (position >= 0.0) & (position <= BINS - 1)
    safe = tl.where(inside, position, 0.0)
    left = safe.to(tl.int32)
    right = tl.minimum(left + 1, BINS - 1)
    base = left.to(y.dtype)
    outside = nan_unless(inside)
    return left, right, (base + 1.0) - safe + outside, safe - base + outside


@triton.jit
def dfl_target_between(y, values, BINS: tl.constexpr, UNROLL: tl.constexpr):
    """Of bins at any increasing values: left is the last at or below y, the weights are linear in between."""
    left = tl.zeros_like(y).to(tl.int32)
    below = tl.zeros_like(y) + tl.load(values)
    above = tl.zeros_like(y) + tl.load(values + 1)
    for k in tl.range(1, BINS, loop_unroll_factor=UNROLL):
        value = tl.load(values + k)
        reached = value <= y
        left = tl.where(reached, k, left)
        below = tl.where(reached, value, below)
        above = tl.where(reached, tl.load(values + tl.minimum(k + 1, BINS - 1)), above)
    right = tl.minimum(left + 1, BINS - 1)
    outside = nan_unless((y >= tl.load(values)) & (y <= tl.load(values + BINS - 1)))
    width = tl.where(left == right, 1.0, above - below)
    left_weight = tl.where(left == right, 1.0, quotient(above - y, width))
    right_weight = tl.where(left == right, 0.0, quotient(y - below, width))
    return left, right, left_weight + outside, right_weight + outside


@triton.jit
def dfl_reweighted(target, left_weight, right_weight):
    """Weights given from outside replace nearness; a NaN target stays NaN, and past the last bin there is nothing."""
    left, right, left_nearness, right_nearness = target
    outside = (left_nearness - left_nearness) + (right_nearness - right_nearness)
    return left, right, left_weight + outside, tl.where(left == right, 0.0, right_weight) + outside


@triton.jit
def dfl_share(k, left, right, left_weight, right_weight):
    """What a bin has of the target."""
    return tl.where(k == left, left_weight, tl.where(k == right, right_weight, 0.0))


@triton.jit
def dfl_forward(x, step, there, target, BINS: tl.constexpr, UNROLL: tl.constexpr, DTYPE: tl.constexpr):
    """(loss, maximum, 1 / sum e, expectation of k). A bin of weight 0 says nothing, even where its probability is 0."""
    left, right, left_weight, right_weight = target
    most, inverse_sum, expectation, total = softmax_expectation(x, step, there, None, BINS, UNROLL, DTYPE)
    at_left = shifted_logit(logit(x, left, step, there, DTYPE), most)
    at_right = shifted_logit(logit(x, right, step, there, DTYPE), most)
    log_sum = logarithm(total)
    loss_left = tl.where(left_weight == 0.0, 0.0, left_weight * (log_sum - at_left))
    loss_right = tl.where(right_weight == 0.0, 0.0, right_weight * (log_sum - at_right))
    return loss_left + loss_right, most, inverse_sum, expectation


@triton.jit
def dfl_gradient(e, k, target, inverse_sum, upstream):
    left, right, left_weight, right_weight = target
    factor = upstream * (left_weight + right_weight) * inverse_sum
    return e * factor - dfl_share(k, left, right, upstream * left_weight, upstream * right_weight)
