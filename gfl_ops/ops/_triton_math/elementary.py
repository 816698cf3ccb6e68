# mypy: disable-error-code="no-untyped-def"
"""csrc/math/elementary.h and portable.h: exp, log, powers, atan and sigmoid, to about 1 ulp."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def maximum(a, b):
    """As torch has it: a NaN on either side comes out."""
    if a.dtype == tl.float64:  # no GPU has an instruction for it
        return tl.where(a > b, a, tl.where(a <= b, b, a + b))
    else:
        return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def minimum(a, b):
    if a.dtype == tl.float64:
        return tl.where(a < b, a, tl.where(a >= b, b, a + b))
    else:
        return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def capped(x):
    """Keeps 0 * infinity from being NaN; a NaN passes through."""
    return minimum(x, 3.4028234663852886e38)


@triton.jit
def quotient(a, b):
    """Rounded as IEEE has it, which Triton's division of float32 is not."""
    if b.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def exponential(x):
    """e^x for x up to 88. In float32 the rounding error of x log2(e) is carried along, so that e^-80 is exact, too."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        z = maximum(x, -104.0)
        high = z * 1.44269504
        low = tl.fma(z, 1.92596299e-8, tl.fma(z, 1.44269504, -high))
        y = tl.exp2(high)
        return tl.fma(y * 0.693147181, low, y)


@triton.jit
def brief_exponential(x):
    """e^x in float32, off by |x| 6e-8 of itself, which a half type's x is by far more."""
    return tl.exp2(x * 1.44269504)


@triton.jit
def reciprocal(x, BRIEF: tl.constexpr = False):
    """1 / x for x in [1, 2]. By way of the square root: Triton has no other division of float32 than one that takes
    eight instructions more, for x that are huge or tiny. BRIEF: to 3e-7, for half types."""
    if x.dtype == tl.float64:
        return 1.0 / x
    else:
        root = tl.rsqrt(x)
        r = root * root
        return r if BRIEF else tl.fma(tl.fma(-x, r, 1.0), r, r)


@triton.jit
def twice_atanh(s):
    """2 atanh(s) for |s| <= 1/3 in float32."""
    z = s * s
    p = tl.fma(z, 0.2817833423614, 0.2796060144902)
    p = tl.fma(p, z, 0.4002490937710)
    p = tl.fma(p, z, 0.6666631698608)
    return s * tl.fma(p, z, 2.0)


@triton.jit
def logarithm(x):
    """log x; 0 gives -infinity, infinity itself, a negative x or a NaN gives NaN."""
    if x.dtype == tl.float64:
        return tl.log(x)
    else:
        bits = x.to(tl.int32, bitcast=True)
        exponent = (bits - 0x3F3504F3) >> 23
        m = (bits - (exponent << 23)).to(tl.float32, bitcast=True)
        n = exponent.to(tl.float32)
        log_m = twice_atanh(quotient(m - 1.0, m + 1.0))
        result = tl.fma(n, 0.693359375, tl.fma(n, -2.12194440e-4, log_m))
        not_positive = tl.where(x == 0.0, float("-inf"), float("nan"))
        return tl.where(x > 0.0, tl.where(x < float("inf"), result, x), not_positive)


@triton.jit
def log1p_slope(e):
    """log(1 + e) / e for e in [0, 1] in float32."""
    p = tl.fma(e, 0.005232690027469, -0.02950521991923)
    p = tl.fma(p, e, 0.07822591750629)
    p = tl.fma(p, e, -0.136632425023)
    p = tl.fma(p, e, 0.1910600499441)
    p = tl.fma(p, e, -0.2484298169298)
    p = tl.fma(p, e, 0.3331909673176)
    p = tl.fma(p, e, -0.4999949313656)
    return tl.fma(p, e, 0.9999999698798)


@triton.jit
def log1p_double(y):
    """log(1 + y) in float64: what 1 + y loses of y is put back as a factor."""
    u = 1.0 + y
    return tl.where(u == 1.0, y, tl.log(u) * (y / (u - 1.0)))


@triton.jit
def log_complement(p):
    """log(1 - p) for p in [0, 1], exact relative to a tiny p; 1 gives -infinity."""
    if p.dtype == tl.float64:
        return log1p_double(-p)
    else:
        s = quotient(p, 2.0 - p)
        return tl.where(p < 0.5, -twice_atanh(s), logarithm(1.0 - p))


@triton.jit
def power(base, exponent):
    """base^exponent for base >= 0 with 0^0 = 1; capped at e^88."""
    result = exponential(minimum(exponent * logarithm(base), 88.0))
    return tl.where(exponent == 0.0, 1.0, result)


@triton.jit
def arctangent(x):
    a = tl.abs(x)
    z = tl.where(a > 1.0, quotient(1.0, a), a)
    angle = arctangent_double(z) if x.dtype == tl.float64 else arctangent_float(z)
    angle = tl.where(a > 1.0, 1.5707963267948966 - angle, angle)
    return tl.where(x < 0.0, -angle, angle)


@triton.jit
def arctangent_float(z):
    """Of z in [0, 1]: z times a polynomial of degree 9 in z^2."""
    s = z * z
    p = tl.fma(s, -0.0017539299338, 0.0107269464061)
    p = tl.fma(p, s, -0.0308046005666)
    p = tl.fma(p, s, 0.0575521029532)
    p = tl.fma(p, s, -0.0837731510401)
    p = tl.fma(p, s, 0.1094203069806)
    p = tl.fma(p, s, -0.1426193267107)
    p = tl.fma(p, s, 0.1999826580286)
    p = tl.fma(p, s, -0.3333328366280)
    return tl.fma(p, s, 1.0) * z


@triton.jit
def arctangent_double(z):
    """Of z in [0, 1]: atan z = 2 atan(z / (1 + sqrt(1 + z^2))), twice; then z is below 0.2 and the series is short."""
    z = z / (1.0 + tl.sqrt(1.0 + z * z))
    z = z / (1.0 + tl.sqrt(1.0 + z * z))
    s = z * z
    p = tl.zeros_like(z)
    for i in tl.static_range(12):
        p = 1.0 / (25 - 2 * i) - s * p
    return 4.0 * z * (1.0 - s * p)


# ---- p = sigmoid(x), q = 1 - p and softplus, from one exponential and one reciprocal ----


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
