# mypy: disable-error-code="no-untyped-def"
"""csrc/math/class_loss.h: dense classification losses of one logit or probability, each as (loss, grad).

`negative` is the loss of a class that is not the label, `positive` that of the label's own class, `dense` that of a
soft target. FORMULA is a gfl_class_formula. A modulating factor's exponent is a number; SQUARE says that it is the
usual 2, which needs no power.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import (
    capped,
    exponential,
    log_complement,
    logarithm,
    maximum,
    power,
    quotient,
    sigmoid_parts,
    softplus,
    widened,
)

QUALITY_FOCAL = tl.constexpr(0)
QUALITY_FOCAL_PROBABILITY = tl.constexpr(1)
SIGMOID_FOCAL = tl.constexpr(2)
SOFT_CROSS_ENTROPY = tl.constexpr(3)
VARIFOCAL = tl.constexpr(4)  # the first of its forms; every other one is even
VARIFOCAL_DETACHED = tl.constexpr(6)  # this one and the next


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
def soft_cross_entropy_negative(x):
    """Of x as it was loaded."""
    p, _, e, slope = sigmoid_parts(x)
    return softplus(widened(x), e, slope), p


@triton.jit
def soft_cross_entropy_dense(x, target):
    p, q, e, slope = sigmoid_parts(x)
    return bce_with_logits(x, target, e, slope), p * (1.0 - target) - q * target


@triton.jit
def varifocal_negative(x, gamma, alpha, FORMULA: tl.constexpr, SQUARE: tl.constexpr):
    """Of x as it was loaded."""
    p, q, e, slope = sigmoid_parts(x)
    x = widened(x)
    factor = alpha * modulation_of_sigmoid(x, p, e, slope, gamma, SQUARE)
    bce = softplus(x, e, slope)
    if FORMULA >= VARIFOCAL_DETACHED:
        return factor * bce, factor * p
    else:
        return factor * bce, factor * tl.fma(q * capped(bce), 2.0 if SQUARE else gamma, p)


@triton.jit
def varifocal_dense(x, target, gamma, alpha, FORMULA: tl.constexpr, SQUARE: tl.constexpr):
    p, q, e, slope = sigmoid_parts(x)
    d = p * (1.0 - target) - q * target
    distance = tl.abs(d)
    bce = bce_with_logits(x, target, e, slope)
    factor = modulation(distance, gamma, SQUARE)
    grad = factor * d
    if FORMULA < VARIFOCAL_DETACHED:
        steep = modulation_slope(distance, gamma, SQUARE) * (p * q * capped(bce))
        grad = grad + signed(steep, d)
    of_positive, grad_of_positive = weighed(bce, d, target, FORMULA)
    positive = target > 0.0
    return tl.where(positive, of_positive, alpha * (factor * bce)), tl.where(positive, grad_of_positive, alpha * grad)


@triton.jit
def varifocal_positive(x, score, FORMULA: tl.constexpr):
    bce, d = soft_cross_entropy_dense(x, score)
    return weighed(bce, d, score, FORMULA)


@triton.jit
def weighed(bce, d, target, FORMULA: tl.constexpr):
    """A factor of 0 leaves nothing of an infinite loss."""
    if FORMULA % 2 == 1:
        return bce, d
    else:
        return target * tl.where(target == 0.0, capped(bce), bce), target * d


@triton.jit
def dense(x, target, exponent, alpha, FORMULA: tl.constexpr, SQUARE: tl.constexpr):
    if FORMULA == QUALITY_FOCAL:
        return quality_focal_dense(x, target, exponent, SQUARE)
    elif FORMULA == QUALITY_FOCAL_PROBABILITY:
        return quality_focal_probability_dense(x, target, exponent, SQUARE)
    elif FORMULA == SIGMOID_FOCAL:
        return sigmoid_focal_dense(x, target, exponent, alpha, SQUARE)
    elif FORMULA == SOFT_CROSS_ENTROPY:
        return soft_cross_entropy_dense(x, target)
    else:
        return varifocal_dense(x, target, exponent, alpha, FORMULA, SQUARE)


@triton.jit
def negative(x, exponent, alpha, FORMULA: tl.constexpr, SQUARE: tl.constexpr):
    if FORMULA == QUALITY_FOCAL:
        return quality_focal_negative(x, exponent, SQUARE)
    elif FORMULA == QUALITY_FOCAL_PROBABILITY:
        p = widened(x)
        return quality_focal_probability_dense(p, tl.zeros_like(p), exponent, SQUARE)
    elif FORMULA == SIGMOID_FOCAL:
        return sigmoid_focal_negative(x, exponent, alpha, SQUARE)
    elif FORMULA == SOFT_CROSS_ENTROPY:
        return soft_cross_entropy_negative(x)
    else:
        return varifocal_negative(x, exponent, alpha, FORMULA, SQUARE)


@triton.jit
def positive(x, score, exponent, alpha, FORMULA: tl.constexpr, SQUARE: tl.constexpr):
    if FORMULA == SIGMOID_FOCAL:
        return sigmoid_focal_positive(x, exponent, alpha, SQUARE)
    elif FORMULA >= VARIFOCAL:
        return varifocal_positive(x, score, FORMULA)
    else:
        return dense(x, score, exponent, alpha, FORMULA, SQUARE)
