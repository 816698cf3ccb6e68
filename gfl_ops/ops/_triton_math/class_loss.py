# mypy: disable-error-code="no-untyped-def"
"""csrc/math/class_loss.h: dense classification losses of one logit or probability, each as (loss, grad).

`negative` is the loss of a class that is not the label, `positive` that of the label's own class, `dense` that of a
soft target. FORMULA is a gfl_class_formula.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import capped, log_complement, logarithm, maximum, quotient
from .sigmoid import (
    bce_with_logits,
    modulation,
    modulation_of_sigmoid,
    modulation_slope,
    sigmoid_parts,
    signed,
    softplus,
    widened,
)

QUALITY_FOCAL = tl.constexpr(0)
QUALITY_FOCAL_PROBABILITY = tl.constexpr(1)
SIGMOID_FOCAL = tl.constexpr(2)


@triton.jit
def quality_focal_negative(x, beta, SQUARE: tl.constexpr):
    """Of x as it was loaded: half types are widened here."""
    p, q, e, slope = sigmoid_parts(x)
    x = widened(x)
    factor = modulation_of_sigmoid(x, p, e, slope, beta, SQUARE)
    bce = softplus(x, e, slope)
    return factor * bce, factor * tl.fma(q * capped(bce), 2.0 if SQUARE else beta, p)


@triton.jit
def quality_focal_dense(x, target, beta, SQUARE: tl.constexpr):
    p, q, e, slope = sigmoid_parts(x)
    d = p * (1.0 - target) - q * target
    distance = tl.abs(d)
    bce = bce_with_logits(x, target, e, slope)
    factor = modulation(distance, beta, SQUARE)
    steep = modulation_slope(distance, beta, SQUARE) * (p * q * capped(bce))
    return factor * bce, factor * d + signed(steep, d)


@triton.jit
def quality_focal_probability_dense(p, target, beta, SQUARE: tl.constexpr):
    log_p = maximum(logarithm(p), -100.0)
    log_q = maximum(log_complement(p), -100.0)
    bce = -(target * log_p + (1.0 - target) * log_q)
    variance = maximum(p * (1.0 - p), 9.999999960041972e-13)  # 1e-12 as a float, which torch has for double as well
    d = p - target
    distance = tl.abs(d)
    factor = modulation(distance, beta, SQUARE)
    steep = modulation_slope(distance, beta, SQUARE) * bce
    inside = tl.where((p >= 0.0) & (p <= 1.0), 0.0, float("nan"))
    return factor * bce + inside, factor * quotient(d, variance) + signed(steep, d) + inside


@triton.jit
def sigmoid_focal_negative(x, gamma, alpha, SQUARE: tl.constexpr):
    loss, grad = quality_focal_negative(x, gamma, SQUARE)
    return (1.0 - alpha) * loss, (1.0 - alpha) * grad


@triton.jit
def sigmoid_focal_positive(x, gamma, alpha, SQUARE: tl.constexpr):
    loss, grad = quality_focal_negative(-x, gamma, SQUARE)
    return alpha * loss, -(alpha * grad)


@triton.jit
def sigmoid_focal_dense(x, target, gamma, alpha, SQUARE: tl.constexpr):
    p, q, e, slope = sigmoid_parts(x)
    rest = 1.0 - target
    u = p * rest + q * target
    share = alpha * target + (1.0 - alpha) * rest
    bce = bce_with_logits(x, target, e, slope)
    factor = modulation(u, gamma, SQUARE)
    pull = modulation_slope(u, gamma, SQUARE) * ((rest - target) * (p * q * capped(bce)))
    return share * (factor * bce), share * (factor * (p * rest - q * target) + pull)


@triton.jit
def dense(x, target, exponent, alpha, FORMULA: tl.constexpr, SQUARE: tl.constexpr):
    if FORMULA == QUALITY_FOCAL:
        return quality_focal_dense(x, target, exponent, SQUARE)
    elif FORMULA == QUALITY_FOCAL_PROBABILITY:
        return quality_focal_probability_dense(x, target, exponent, SQUARE)
    else:
        return sigmoid_focal_dense(x, target, exponent, alpha, SQUARE)


@triton.jit
def negative(x, exponent, alpha, FORMULA: tl.constexpr, SQUARE: tl.constexpr):
    if FORMULA == QUALITY_FOCAL:
        return quality_focal_negative(x, exponent, SQUARE)
    elif FORMULA == QUALITY_FOCAL_PROBABILITY:
        p = widened(x)
        return quality_focal_probability_dense(p, tl.zeros_like(p), exponent, SQUARE)
    else:
        return sigmoid_focal_negative(x, exponent, alpha, SQUARE)


@triton.jit
def positive(x, score, exponent, alpha, FORMULA: tl.constexpr, SQUARE: tl.constexpr):
    if FORMULA == SIGMOID_FOCAL:
        return sigmoid_focal_positive(x, exponent, alpha, SQUARE)
    else:
        return dense(x, score, exponent, alpha, FORMULA, SQUARE)
