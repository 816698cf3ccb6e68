# mypy: disable-error-code="no-untyped-def"
"""csrc/math/gfl_loss.h: what the sums over the positives come to in the whole GFL loss."""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import maximum


@triton.jit
def over_weight(value, scale, weight, DTYPE: tl.constexpr):
    """value * scale / max(weight, 1), of a value and a scale in double."""
    return (value * scale * (1.0 / maximum(weight, 1.0).to(tl.float64))).to(DTYPE)


@triton.jit
def mean_quality(sum_of_all, positives, DTYPE: tl.constexpr):
    return (sum_of_all / maximum(positives, 1.0).to(tl.float64)).to(DTYPE)
