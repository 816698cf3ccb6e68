# mypy: disable-error-code="no-untyped-def"
"""csrc/math/sigmoid.h: p = sigmoid(x), q = 1 - p and what binary cross entropy needs, from one exponential.

A modulating factor's exponent is a number; SQUARE says that it is the usual 2, which needs no power.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import capped, exponential, log1p_double, log1p_of_fraction, power


@triton.jit
def sigmoid_parts(x):
    """(p, q, log(1 + e^-|x|))"""
    e = exponential(-tl.abs(x))
    larger = 1.0 / (1.0 + e)
    smaller = e * larger
    log1p_e = log1p_double(e) if x.dtype == tl.float64 else log1p_of_fraction(e)
    positive = x >= 0.0
    return tl.where(positive, larger, smaller), tl.where(positive, smaller, larger), log1p_e


@triton.jit
def softplus(x, log1p_e):
    return tl.where(x > 0.0, x, 0.0) + log1p_e


@triton.jit
def bce_with_logits(x, target, log1p_e):
    """At x = +-infinity the factor may be 0: nothing of the infinity is left then."""
    slope = tl.where(x >= 0.0, 1.0 - target, target)
    return tl.where(slope == 0.0, 0.0, tl.abs(x) * slope) + log1p_e


@triton.jit
def modulation(base, exponent, SQUARE: tl.constexpr):
    return base * base if SQUARE else power(base, exponent)


@triton.jit
def modulation_of_sigmoid(x, p, log1p_e, exponent, SQUARE: tl.constexpr):
    """p^b = e^(-b softplus(-x)): the logarithm of the sigmoid is at hand."""
    if SQUARE:
        return p * p
    else:
        minus_log_p = tl.where(x < 0.0, -x, 0.0) + log1p_e
        return exponential(-(exponent * capped(minus_log_p)))


@triton.jit
def modulation_slope(base, exponent, SQUARE: tl.constexpr):
    """d base^b / d base; 0 at base 0, where an exponent below 1 has no derivative."""
    if SQUARE:
        return base + base
    else:
        steep = exponent * power(base, exponent - 1.0)
        return tl.where(base == 0.0, tl.where(exponent == 1.0, 1.0, 0.0), steep)


@triton.jit
def signed(magnitude, d):
    """magnitude times the sign of d."""
    return tl.where(d > 0.0, magnitude, tl.where(d == 0.0, 0.0, -magnitude))
