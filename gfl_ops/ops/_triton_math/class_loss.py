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
)

QUALITY_FOCAL = tl.constexpr(0)
QUALITY_FOCAL_PROBABILITY = tl.constexpr(1)
SIGMOID_FOCAL = tl.constexpr(2)


@triton.jit
def quality_focal_negative(x, beta, SQUARE: tl.constexpr):
    p, q, log1p_e = sigmoid_parts(x)
    factor = modulation_of_sigmoid(x, p, log1p_e, beta, SQUARE)
    bce = softplus(x, log1p_e)
    pull = q * capped(bce)
    return factor * bce, factor * (p + (2.0 * pull if SQUARE else beta * pull))


@triton.jit
def quality_focal_dense(x, target, beta, SQUARE: tl.constexpr):
    p, q, log1p_e = sigmoid_parts(x)
    d = p * (1.0 - target) - q * target
    distance = tl.abs(d)
    bce = bce_with_logits(x, target, log1p_e)
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
    p, q, log1p_e = sigmoid_parts(x)
    rest = 1.0 - target
    u = p * rest + q * target
    share = alpha * target + (1.0 - alpha) * rest
    bce = bce_with_logits(x, target, log1p_e)
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
        return quality_focal_probability_dense(x, tl.zeros_like(x), exponent, SQUARE)
    else:
        return sigmoid_focal_negative(x, exponent, alpha, SQUARE)


@triton.jit
def positive(x, score, exponent, alpha, FORMULA: tl.constexpr, SQUARE: tl.constexpr):
    if FORMULA == SIGMOID_FOCAL:
        return sigmoid_focal_positive(x, exponent, alpha, SQUARE)
    else:
        return dense(x, score, exponent, alpha, FORMULA, SQUARE)
