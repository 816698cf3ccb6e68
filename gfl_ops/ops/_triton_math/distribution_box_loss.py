# mypy: disable-error-code="no-untyped-def"
"""csrc/math/distribution_box_loss.h: four edge distributions of one positive against its target box, in strides."""

from __future__ import annotations

import triton
import triton.language as tl

from .distribution_focal_loss import dfl_share
from .iou import LINEAR, UNION_FLOOR, box_loss, plain_iou


@triton.jit
def target_distance(point, border, side, most):
    """The distance whose bins carry the weight of a side: left, top, right, bottom. A NaN stays NaN."""
    distance = tl.where(side < 2, point - border, border - point)
    return tl.where(distance < 0.0, 0.0, tl.where(distance > most, most, distance))


@triton.jit
def distribution_box(
    x, y, box, expectations, eps, KIND: tl.constexpr, EPS_RULE: tl.constexpr, ALPHA_RULE: tl.constexpr
):  # fmt: skip
    """(IoU loss, quality, decoded box, d loss / d expectation of each side)"""
    decoded = (x - expectations[0], y - expectations[1], x + expectations[2], y + expectations[3])
    loss, _, grad = box_loss(decoded, box, eps, KIND, LINEAR, EPS_RULE, ALPHA_RULE)
    quality = plain_iou(decoded, box, UNION_FLOOR)
    return loss, quality, decoded, (-grad[0], -grad[1], grad[2], grad[3])


@triton.jit
def distribution_box_gradient(e, k, target, inverse_sum, expectation, through_box, through_bins):
    """What the box says through the expectation, and what the distribution focal loss says."""
    left, right, left_weight, right_weight = target
    pull = through_box * inverse_sum
    spread = through_bins * (left_weight + right_weight) * inverse_sum
    share = dfl_share(k, left, right, through_bins * left_weight, through_bins * right_weight)
    return e * (pull * (k - expectation) + spread) - share
