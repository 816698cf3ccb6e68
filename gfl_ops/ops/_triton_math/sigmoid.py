# mypy: disable-error-code="no-untyped-def"
"""csrc/math/sigmoid.h: p = sigmoid(x), q = 1 - p and what binary cross entropy needs, from one exponential.

A modulating factor's exponent is a number; SQUARE says that it is the usual 2, which needs no power.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import brief_exponential, capped, exponential, log1p_double, log1p_slope, power, reciprocal


@triton.jit
def widened(x):
    return x.to(tl.float32) if x.dtype.primitive_bitwidth == 16 else x


@triton.jit
def sigmoid_parts(x):
    """(p, q, e, slope): e times slope is log(1 + e^-|x|). Of an x of a half type in fewer instructions: a GPU reads two
    of those in the time that a float takes."""
    BRIEF: tl.constexpr = x.dtype.primitive_bitwidth == 16
    x = widened(x)
    e = brief_exponential(-tl.abs(x)) if BRIEF else exponential(-tl.abs(x))
    larger = reciprocal(e + 1.0, BRIEF)
    smaller = e * larger
    positive = x >= 0.0
    p, q = tl.where(positive, larger, smaller), tl.where(positive, smaller, larger)
    if x.dtype == tl.float64:
        return p, q, log1p_double(e), tl.full(e.shape, 1.0, e.dtype)
    else:
        return p, q, e, log1p_slope(e)


@triton.jit
def softplus(x, e, slope):
    return tl.fma(e, slope, tl.where(x > 0.0, x, 0.0))


@triton.jit
def bce_with_logits(x, target, e, slope):
    """At x = +-infinity the factor may be 0: nothing of the infinity is left then."""
    steep = tl.where(x >= 0.0, 1.0 - target, target)
    return tl.fma(e, slope, tl.where(steep == 0.0, 0.0, tl.abs(x) * steep))


@triton.jit
def modulation(base, exponent, SQUARE: tl.constexpr):
    return base * base if SQUARE else power(base, exponent)


@triton.jit
def modulation_of_sigmoid(x, p, e, slope, exponent, SQUARE: tl.constexpr):
    """p^b = e^(-b softplus(-x)): the logarithm of the sigmoid is at hand."""
    if SQUARE:
        return p * p
    else:
        minus_log_p = softplus(-x, e, slope)
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
