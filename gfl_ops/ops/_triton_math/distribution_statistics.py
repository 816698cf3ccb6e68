# mypy: disable-error-code="no-untyped-def"
"""csrc/math/distribution_statistics.h: the highest probabilities of softmax distributions, a row of a tile for each."""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import exponential
from .softmax import shifted_logit


@triton.jit
def softmax_of_rows(x, is_bin):
    """(e^(x - maximum), 1 / their sum). A NaN need not come through the maximum: it makes the sum NaN."""
    most = tl.max(tl.where(is_bin, x, float("-inf")), 1)
    e = tl.where(is_bin, exponential(shifted_logit(x, most[:, None])), 0.0)
    return e, 1.0 / tl.sum(e, 1)


@triton.jit
def highest(x, k, is_left, BLOCK_BINS: tl.constexpr):
    """Which of the bins that are left has the largest logit, the first of equal ones."""
    most = tl.max(tl.where(is_left, x, float("-inf")), 1)
    first = tl.min(tl.where(is_left & (x == most[:, None]), k, BLOCK_BINS), 1)
    return k == first[:, None]
