# mypy: disable-error-code="no-untyped-def"
"""csrc/math/iou.h: the IoU family on aligned boxes, and the gradient by the predicted box.

A box is (x1, y1, x2, y2); a loss is (loss, iou, gradient as a box). The options are constants of the kernel but eps.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import arctangent, logarithm, maximum, minimum, quotient

IOU = tl.constexpr(0)
GIOU = tl.constexpr(1)
DIOU = tl.constexpr(2)
CIOU = tl.constexpr(3)
LINEAR = tl.constexpr(0)
SQUARED = tl.constexpr(1)
LOG = tl.constexpr(2)
FLOOR = tl.constexpr(0)
ADD = tl.constexpr(1)
ALWAYS = tl.constexpr(1)
UNION_FLOOR = tl.constexpr(1e-6)
FOUR_OVER_PI_SQUARED = tl.constexpr(0.40528473456935109)


@triton.jit
def maximum_slope(a, b):
    """d max(a, b) / d a"""
    return tl.where(a > b, 1.0, tl.where(a == b, 0.5, 0.0))


@triton.jit
def minimum_slope(a, b):
    return maximum_slope(b, a)


@triton.jit
def clamped(length):
    return tl.where(length < 0.0, 0.0, length)


@triton.jit
def clamped_slope(length):
    return tl.where(length >= 0.0, 1.0, 0.0)


@triton.jit
def box_area(box):
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


@triton.jit
def overlap(p, t):
    """(width, height) before the clamp at 0, the area that both share, and area_p + area_t - that: the union"""
    raw_width = minimum(p[2], t[2]) - maximum(p[0], t[0])
    raw_height = minimum(p[3], t[3]) - maximum(p[1], t[1])
    area = clamped(raw_width) * clamped(raw_height)
    return raw_width, raw_height, area, box_area(p) + box_area(t) - area


@triton.jit
def plain_iou(p, t, union_floor):
    """The quality target and box_iou."""
    _, _, area, united = overlap(p, t)
    return quotient(area, maximum(united, union_floor))


@triton.jit
def overlap_gradient(p, t, raw_width, raw_height, d_inter, d_area):
    """d loss / d p from d loss / d inter (with the union's part) and d loss / d area_p."""
    d_width = d_inter * clamped(raw_height) * clamped_slope(raw_width)
    d_height = d_inter * clamped(raw_width) * clamped_slope(raw_height)
    area_x = d_area * (p[3] - p[1])
    area_y = d_area * (p[2] - p[0])
    return (
        -(d_width * maximum_slope(p[0], t[0])) - area_x,
        -(d_height * maximum_slope(p[1], t[1])) - area_y,
        d_width * minimum_slope(p[2], t[2]) + area_x,
        d_height * minimum_slope(p[3], t[3]) + area_y,
    )


@triton.jit
def enclosure(p, t):
    """(width, height) of the box around both, before the clamp at 0"""
    return maximum(p[2], t[2]) - minimum(p[0], t[0]), maximum(p[3], t[3]) - minimum(p[1], t[1])


@triton.jit
def add_enclosure_gradient(p, t, raw_width, raw_height, d_width, d_height, grad, CLAMPED: tl.constexpr = True):
    x = d_width * clamped_slope(raw_width) if CLAMPED else d_width
    y = d_height * clamped_slope(raw_height) if CLAMPED else d_height
    return (
        grad[0] - x * minimum_slope(p[0], t[0]),
        grad[1] - y * minimum_slope(p[1], t[1]),
        grad[2] + x * maximum_slope(p[2], t[2]),
        grad[3] + y * maximum_slope(p[3], t[3]),
    )


@triton.jit
def guarded(raw, eps, EPS_RULE: tl.constexpr):
    """A denominator under its eps rule: as divisor, as the area that a gap is measured with, and how much of a change
    in the raw area reaches both."""
    if EPS_RULE == ADD:
        return raw + eps, raw, tl.full(raw.shape, 1.0, raw.dtype)
    else:
        value = maximum(raw, eps)
        return value, value, maximum_slope(raw, eps)


@triton.jit
def plain_iou_loss(p, t, eps, TRANSFORM: tl.constexpr, EPS_RULE: tl.constexpr):
    raw_width, raw_height, area, raw_union = overlap(p, t)
    united, _, slope = guarded(raw_union, eps if EPS_RULE == ADD else UNION_FLOOR, EPS_RULE)
    iou = quotient(area, united)
    least = tl.where(iou < eps, eps, iou)
    passed = tl.where(iou >= eps, 1.0, 0.0).to(iou.dtype)
    if TRANSFORM == SQUARED:
        loss = 1.0 - least * least
        d_iou = -(least + least) * passed
    elif TRANSFORM == LOG:
        loss = -logarithm(least)
        d_iou = quotient(-passed, least)
    else:
        loss = 1.0 - least
        d_iou = -passed
    d_union = -quotient(d_iou * iou, united) * slope
    grad = overlap_gradient(p, t, raw_width, raw_height, quotient(d_iou, united) - d_union, d_union)
    return loss, iou, grad


@triton.jit
def giou_loss(p, t, eps, EPS_RULE: tl.constexpr):
    """1 - inter / u + (c - u) / c"""
    raw_width, raw_height, area, raw_union = overlap(p, t)
    around_width, around_height = enclosure(p, t)
    width = clamped(around_width)
    height = clamped(around_height)
    united, union_area, union_slope = guarded(raw_union, eps, EPS_RULE)
    enclosed, enclosed_area, enclosed_slope = guarded(width * height, eps, EPS_RULE)
    iou = quotient(area, united)
    empty = quotient(enclosed_area - union_area, enclosed)
    d_inter = quotient(-1.0, united)
    d_union = (quotient(iou, united) - quotient(1.0, enclosed)) * union_slope
    d_enclosed = quotient(1.0 - empty, enclosed) * enclosed_slope
    grad = overlap_gradient(p, t, raw_width, raw_height, d_inter - d_union, d_union)
    grad = add_enclosure_gradient(p, t, around_width, around_height, d_enclosed * height, d_enclosed * width, grad)
    return 1.0 - (iou - empty), iou, grad


@triton.jit
def ciou_shape(p, t, iou, eps, EPS_RULE: tl.constexpr, ALPHA_RULE: tl.constexpr):
    """(alpha v, d / d pred's width, d / d pred's height); alpha carries no gradient."""
    p_width = p[2] - p[0]
    p_height = p[3] - p[1] + eps
    angle = arctangent(quotient(t[2] - t[0], t[3] - t[1] + eps)) - arctangent(quotient(p_width, p_height))
    v = FOUR_OVER_PI_SQUARED * (angle * angle)
    counts = (v > 0.0) if ALPHA_RULE == ALWAYS else (iou > 0.5) & (v > 0.0)
    apart = clamped(1.0 - iou) + eps if EPS_RULE == ADD else clamped(1.0 - iou)
    alpha = tl.where(counts, quotient(v, tl.where(counts, apart + v, 1.0)), 0.0)
    d_angle = quotient(-(alpha * FOUR_OVER_PI_SQUARED * (angle + angle)), p_width * p_width + p_height * p_height)
    return alpha * v, d_angle * p_height, -(d_angle * p_width)


@triton.jit
def distance_iou_loss(p, t, eps, KIND: tl.constexpr, EPS_RULE: tl.constexpr, ALPHA_RULE: tl.constexpr):
    """DIoU, and CIoU with its shape term."""
    raw_width, raw_height, area, raw_union = overlap(p, t)
    around_width, around_height = enclosure(p, t)
    width = around_width if EPS_RULE == ADD else clamped(around_width)
    height = around_height if EPS_RULE == ADD else clamped(around_height)
    united = raw_union + eps
    iou = quotient(area, united)
    diagonal = width * width + height * height + eps
    dx = (t[0] + t[2]) - (p[0] + p[2])
    dy = (t[1] + t[3]) - (p[1] + p[3])
    distance = quotient(dx * dx * 0.25 + dy * dy * 0.25, diagonal)

    d_union = quotient(iou, united)
    grad = overlap_gradient(p, t, raw_width, raw_height, quotient(-1.0, united) - d_union, d_union)
    d_diagonal = -quotient(distance, diagonal)
    d_width = d_diagonal * (width + width)
    d_height = d_diagonal * (height + height)
    grad = add_enclosure_gradient(p, t, around_width, around_height, d_width, d_height, grad, EPS_RULE != ADD)
    d_x = -quotient(dx * 0.5, diagonal)
    d_y = -quotient(dy * 0.5, diagonal)
    grad = (grad[0] + d_x, grad[1] + d_y, grad[2] + d_x, grad[3] + d_y)
    if KIND == DIOU:
        return 1.0 - (iou - distance), iou, grad
    else:
        shape, by_width, by_height = ciou_shape(p, t, iou, eps, EPS_RULE, ALPHA_RULE)
        complete = iou - (distance + shape)
        grad = (grad[0] - by_width, grad[1] - by_height, grad[2] + by_width, grad[3] + by_height)
        if EPS_RULE == ADD:
            return 1.0 - complete, iou, grad
        else:
            passed = tl.where((complete >= -1.0) & (complete <= 1.0), 1.0, 0.0)
            similarity = tl.where(complete < -1.0, -1.0, tl.where(complete > 1.0, 1.0, complete))
            grad = (grad[0] * passed, grad[1] * passed, grad[2] * passed, grad[3] * passed)
            return 1.0 - similarity, iou, grad


@triton.jit
def box_loss(
    p, t, eps, KIND: tl.constexpr, TRANSFORM: tl.constexpr, EPS_RULE: tl.constexpr, ALPHA_RULE: tl.constexpr
):  # fmt: skip
    if KIND == IOU:
        return plain_iou_loss(p, t, eps, TRANSFORM, EPS_RULE)
    elif KIND == GIOU:
        return giou_loss(p, t, eps, EPS_RULE)
    else:
        return distance_iou_loss(p, t, eps, KIND, EPS_RULE, ALPHA_RULE)
