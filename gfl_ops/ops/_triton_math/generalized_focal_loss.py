# mypy: disable-error-code="no-untyped-def"
"""csrc/math/generalized_focal_loss.h: the paper's unified loss of two probabilities, element by element."""

from __future__ import annotations

import triton
import triton.language as tl

from .class_loss import modulation, modulation_slope, signed
from .elementary import logarithm, maximum, quotient


@triton.jit
def clamped_cross_entropy(factor, p):
    return tl.where(factor == 0.0, 0.0, -(factor * maximum(logarithm(p), -100.0)))


@triton.jit
def generalized_focal_term(p_left, p_right, y, y_left, y_right, beta, SQUARE: tl.constexpr):
    """(loss, d loss / d p_left, d loss / d p_right)"""
    d = y_left * p_left + y_right * p_right - y
    distance = tl.abs(d)
    near_left = y_right - y
    near_right = y - y_left
    entropy = clamped_cross_entropy(near_left, p_left) + clamped_cross_entropy(near_right, p_right)
    factor = modulation(distance, beta, SQUARE)
    pull = signed(modulation_slope(distance, beta, SQUARE) * entropy, d)
    grad_left = pull * y_left - quotient(factor * near_left, maximum(p_left, 1e-12))
    grad_right = pull * y_right - quotient(factor * near_right, maximum(p_right, 1e-12))
    return factor * entropy, grad_left, grad_right
