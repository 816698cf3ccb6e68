// exp, log, log1p, powers and atan for float and vectors of float, to about 1 ulp; double goes to the C library.
//
// exp   x = n ln2 + r, |r| <= ln2 / 2: a minimax polynomial of degree 6 for e^r (relative error 2e-9), times 2^n.
// log   x = m 2^n with m in [sqrt(1/2), sqrt(2)): n ln2 + log m.
// log m = 2 atanh(s), s = (m - 1) / (m + 1): s times a polynomial in s^2, minimax for s in [0, 1/3] (4e-9).
// log1p(e), e in [0, 1]: e times a minimax polynomial of degree 8 (3e-8), so exact relative to a tiny e.
// atan  z times a polynomial of degree 9 in z^2 for |z| <= 1 (2.4e-9); beyond, pi/2 - atan(1/z).
#pragma once

#include "portable.h"

#define GFL_FORMULAS  // every formula includes this file; see cpu/simd/formulas.h

namespace gfl {

// max and min as torch has them: a NaN on either side comes out.
template <class T>
GFL_FN T maximum(T a, T b) {
  return select(a > b, a, select(b >= a, b, a + b));
}
template <class T>
GFL_FN T minimum(T a, T b) {
  return select(a < b, a, select(b <= a, b, a + b));
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
// One instruction each on a GPU, and no branch.
GFL_FN float maximum(float a, float b) {
  float c;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
  return c;
}
GFL_FN float minimum(float a, float b) {
  float c;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
  return c;
}
GFL_FN float capped(float x) { return minimum(x, 3.4028234663852886e38f); }
#endif

// The cap that keeps 0 * infinity from being NaN; a NaN passes through.
template <class T>
GFL_FN T capped(T x) {
  const T huge = constant<T>(3.4028234663852886e38);
  return select(x > huge, huge, x);
}

#if defined(__AVX512F__) && defined(GFL_VECTOR_BYTES)
GFL_FN VecF capped(VecF x) { return (VecF)_mm512_min_ps(_mm512_set1_ps(3.4028234663852886e38f), (__m512)x); }
#endif

// a b for an a that is 0 wherever b is infinite: 0 there, not NaN. The product must lie in [0, 1], and a NaN in it must show
// elsewhere in the formula: a GPU has an instruction that makes it 0.
template <class T>
GFL_FN T vanishing_product(T a, T b) {
  return a * capped(b);
}
#if defined(__CUDA_ARCH__)
GFL_FN float vanishing_product(float a, float b) {
  float product;
  asm("mul.sat.f32 %0, %1, %2;" : "=f"(product) : "f"(a), "f"(b));
  return product;
}
#endif

// n = x log2(e), rounded, for e^x = 2^n e^(x - n ln2). What it returns is n for times_power_of_two alone: adding
// 1.5 * 2^23 left it in the low bits of the mantissa, where a shift makes an exponent of it.
template <class T>
GFL_FN T nearest_exponent(T x, T& n) {
  const T magic = constant<T>(12582912.0);
  const T shifted = fused(x, constant<T>(1.4426950408889634), magic);
  n = shifted - magic;
  return shifted;
}

// e^x for x in [-infinity, 88]. Below -87.3 it is 0: what the true value would add to a loss is under 1e-37.
template <class T>
GFL_FN T exponential(T x) {
  T n;
  const T exponent = nearest_exponent(x, n);
  T r = fused(n, constant<T>(-0.693359375), x);
  r = fused(n, constant<T>(2.12194440e-4), r);
  T p = constant<T>(0.0013836742142);
  p = fused(p, r, constant<T>(0.0083748986945));
  p = fused(p, r, constant<T>(0.0416682325304));
  p = fused(p, r, constant<T>(0.1666641980410));
  p = fused(p, r, constant<T>(0.4999999105930));
  p = fused(p, r, constant<T>(1.0));
  p = fused(p, r, constant<T>(1.0));
  return select(x < constant<T>(-87.3), T(), times_power_of_two(p, exponent));
}

#if defined(__CUDA_ARCH__)
// The rounding error of x log2(e) is carried along, so that e^-80 is as exact as e^-1. 2^-150 is already 0. The
// instruction's own 2 ulp reach the result.
GFL_FN float exponential(float x) {
  const float z = maximum(x, -104.0f);
  const float high = z * 1.44269504f;
  const float low = fused(z, 1.92596299e-8f, fused(z, 1.44269504f, -high));
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(high));
  return fused(y * 0.693147181f, low, y);
}
#endif
#if defined(__AVX512F__) && defined(GFL_VECTOR_BYTES)
// x = (m + j/16) ln2 + r, |r| <= ln2 / 32: with a register for the 2^(j/16) a cubic is enough (1.6e-9), and 2^m is an
// instruction. A softmax has few other operations.
struct PowerOfTwo {
  VecF fraction;
  VecF exponent;
};
GFL_FN PowerOfTwo power_of_two(VecF x) {
  const __m512 powers = _mm512_setr_ps(1.0f, 1.0442737824f, 1.0905077327f, 1.1387886348f, 1.1892071150f, 1.2418578121f,
                                       1.2968395547f, 1.3542555469f, 1.4142135624f, 1.4768261459f, 1.5422108254f,
                                       1.6104903319f, 1.6817928305f, 1.7562521604f, 1.8340080864f, 1.9152065614f);
  const VecF magic = VecF() + 786432.0f;  // 1.5 * 2^19 leaves m and, in the lowest four bits, j
  const VecF shifted = fused(x, VecF() + 1.4426950408889634f, magic);
  const VecF power = (VecF)_mm512_permutexvar_ps((__m512i)shifted, powers);
  const VecF n = shifted - magic;
  const VecF r = fused(n, VecF() - 0.6931471805599f, x);
  VecF p = fused(r, VecF() + 0.1666671851259f, VecF() + 0.5000161735906f);
  p = fused(p, r, VecF() + 1.0f) * r;
  return {fused(power, p, power), n};
}
GFL_FN VecF exponential(VecF x) {
  const PowerOfTwo y = power_of_two(x);
  const __mmask16 normal = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.3f), _CMP_NLT_UQ);
  return (VecF)_mm512_maskz_scalef_ps(normal, (__m512)y.fraction, (__m512)y.exponent);
}
// e^x for whoever looks at a sum of these: where |x| is too large it is 0, infinite or NaN, and never an ordinary number.
GFL_FN VecF unbounded_exponential(VecF x) {
  const PowerOfTwo y = power_of_two(x);
  return (VecF)_mm512_scalef_ps((__m512)y.fraction, (__m512)y.exponent);
}
#elif defined(GFL_VECTOR_BYTES)
GFL_FN VecF unbounded_exponential(VecF x) {
  const VecF most = VecF() + 88.0f;
  return exponential(select(x > most, most, x));
}
#endif
GFL_FN double exponential(double x) { return ::exp(x); }

// e^x, off by |x| 6e-8 of itself, which a half type's x is by far more: a GPU takes two instructions for it, not seven,
// and the approximate one's 2 ulp reach the result.
GFL_FN float brief_exponential(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
  return y;
#else
  return exponential(x);
#endif
}

// 2 atanh(s) for |s| <= 1/3.
template <class T>
GFL_FN T twice_atanh(T s) {
  const T z = s * s;
  T p = constant<T>(0.2817833423614);
  p = fused(p, z, constant<T>(0.2796060144902));
  p = fused(p, z, constant<T>(0.4002490937710));
  p = fused(p, z, constant<T>(0.6666631698608));
  return s * fused(p, z, constant<T>(2.0));
}

// log x = 0.693359375 exponent + rest for a normal x; the product is exact.
template <class T>
struct SplitLogarithm {
  T exponent;
  T rest;
};
template <class T>
GFL_FN SplitLogarithm<T> split_logarithm(T x) {
  T m;
  const T n = split_exponent(x, m);
  const T s = (m - 1.0f) / (m + 1.0f);
  return {n, fused(n, constant<T>(-2.12194440e-4), twice_atanh(s))};
}

// log x for a normal x; 0 gives -infinity, infinity itself, a negative x or a NaN gives NaN.
template <class T>
GFL_FN T logarithm(T x) {
  const SplitLogarithm<T> log_x = split_logarithm(x);
  const T result = fused(log_x.exponent, constant<T>(0.693359375), log_x.rest);
  const T infinity = constant<T>(HUGE_VAL);
  const T not_positive = select(x == T(), -infinity, infinity - infinity);
  return select(x > T(), select(x < infinity, result, x), not_positive);
}

// log x - y without first rounding a log x that is as large as y.
template <class T>
GFL_FN T logarithm_less(const SplitLogarithm<T>& log_x, T y) {
  return fused(log_x.exponent, constant<T>(0.693359375), -y) + log_x.rest;
}
GFL_FN double logarithm(double x) { return ::log(x); }

// log(1 + e) / e for e in [0, 1].
template <class T>
GFL_FN T log1p_slope(T e) {
  T p = constant<T>(0.005232690027469);
  p = fused(p, e, constant<T>(-0.02950521991923));
  p = fused(p, e, constant<T>(0.07822591750629));
  p = fused(p, e, constant<T>(-0.136632425023));
  p = fused(p, e, constant<T>(0.1910600499441));
  p = fused(p, e, constant<T>(-0.2484298169298));
  p = fused(p, e, constant<T>(0.3331909673176));
  p = fused(p, e, constant<T>(-0.4999949313656));
  return fused(p, e, constant<T>(0.9999999698798));
}

// The same to 1.4e-6, for half types.
GFL_FN float brief_log1p_slope(float e) {
  float p = 0.014141021452f;
  p = fused(p, e, -0.066401792869f);
  p = fused(p, e, 0.14922386664f);
  p = fused(p, e, -0.23503859933f);
  p = fused(p, e, 0.33109448866f);
  p = fused(p, e, -0.49986965630f);
  return fused(p, e, 0.99999873154f);
}

#if defined(__AVX512F__) && defined(GFL_VECTOR_BYTES)
// A cubic of e around each fifteenth of [0, 1] (5.2e-8): coefficients are looked up by units that have little to do, and
// those that multiply are what a class loss waits for.
GFL_FN VecF log1p_slope(VecF e) {
  const __m512 c0 = _mm512_setr_ps(1.0f, 0.9999976158f, 0.9999610186f, 0.9998310208f, 0.9995492101f, 0.9990691543f,
                                   0.9983584285f, 0.99739784f, 0.9961788058f, 0.9947009683f, 0.9929699302f,
                                   0.9909956455f, 0.9887906909f, 0.9863694906f, 0.9837474227f, 0.9816449285f);
  const __m512 c1 =
      _mm512_setr_ps(-0.4999982417f, -0.499830991f, -0.4987592101f, -0.4964335561f, -0.4928171039f, -0.4880180657f,
                     -0.4822024405f, -0.4755499959f, -0.4682326019f, -0.4604049921f, -0.4522014856f, -0.4437361956f,
                     -0.4351043403f, -0.4263844788f, -0.4176408052f, -0.4110669494f);
  const __m512 c2 =
      _mm512_setr_ps(0.3330693543f, 0.3290749788f, 0.3184166849f, 0.3044525683f, 0.288928628f, 0.2729055285f,
                     0.2570208907f, 0.2416484654f, 0.2269962728f, 0.2131682336f, 0.2002031803f, 0.188099727f,
                     0.1768322587f, 0.1663612723f, 0.1566400379f, 0.1497879773f);
  const __m512 c3 =
      _mm512_setr_ps(-0.2371677458f, -0.2034655958f, -0.1674674153f, -0.1393309683f, -0.117042318f, -0.09917279333f,
                     -0.08469051868f, -0.07283800095f, -0.06305100024f, -0.05490358174f, -0.0480703041f,
                     -0.04229972139f, -0.0373955667f, -0.03320319206f, -0.02959967405f, -0.02721876092f);
  const __m512i fifteenth = (__m512i)fused(e, VecF() + 15.0f / 16.0f, VecF() + 786432.0f);  // in the lowest four bits
  VecF p = (VecF)_mm512_permutexvar_ps(fifteenth, c3);
  p = fused(p, e, (VecF)_mm512_permutexvar_ps(fifteenth, c2));
  p = fused(p, e, (VecF)_mm512_permutexvar_ps(fifteenth, c1));
  return fused(p, e, (VecF)_mm512_permutexvar_ps(fifteenth, c0));
}
#endif

// log(1 - p) for p in [0, 1], exact relative to a tiny p; 1 gives -infinity.
template <class T>
GFL_FN T log_complement(T p) {
  const T s = p / (2.0f - p);
  return select(p < constant<T>(0.5), -twice_atanh(s), logarithm(1.0f - p));
}
GFL_FN double log_complement(double p) { return ::log1p(-p); }

// base^exponent for base >= 0 with 0^0 = 1; capped at e^88.
template <class T>
GFL_FN T power(T base, double exponent) {
  const T product = constant<T>(exponent) * logarithm(base);
  const T most = constant<T>(88.0);
  const T result = exponential(select(product > most, most, product));
  return exponent == 0.0 ? constant<T>(1.0) : result;
}
GFL_FN double power(double base, double exponent) { return ::pow(base, exponent); }

template <class T>
GFL_FN T arctangent(T x) {
  const T a = absolute(x);
  const T one = constant<T>(1.0);
  const T z = select(a > one, one / a, a);
  const T square = z * z;
  T p = constant<T>(-0.0017539299338);
  p = fused(p, square, constant<T>(0.0107269464061));
  p = fused(p, square, constant<T>(-0.0308046005666));
  p = fused(p, square, constant<T>(0.0575521029532));
  p = fused(p, square, constant<T>(-0.0837731510401));
  p = fused(p, square, constant<T>(0.1094203069806));
  p = fused(p, square, constant<T>(-0.1426193267107));
  p = fused(p, square, constant<T>(0.1999826580286));
  p = fused(p, square, constant<T>(-0.3333328366280));
  p = fused(p, square, one) * z;
  const T angle = select(a > one, constant<T>(1.5707963267949) - p, p);
  return select(x < T(), -angle, angle);
}
GFL_FN double arctangent(double x) { return ::atan(x); }

// ---- sigmoid and softplus, from one exponential and one reciprocal -------------------------------------
//
// p = sigmoid(x), q = 1 - p, p' = p q
// sp(x) = log(1 + e^x) = max(x, 0) + log1p(e), e = e^-|x|;  sp'(x) = p

template <class T>
struct SigmoidParts {
  T p;  // sigmoid(x)
  T q;  // 1 - p
  T e;  // e times slope is log(1 + e^-|x|)
  T slope;
};

// a + log(1 + e^-|x|)
template <class T>
GFL_FN T plus_log1p(T a, const SigmoidParts<T>& parts) {
  return fused(parts.e, parts.slope, a);
}

// In three steps, for whoever takes them one at a time: e, r of e, and the parts of all three.
template <class T>
GFL_FN T sigmoid_exponential(T x) {
  return exponential(-absolute(x));
}

template <class T>
GFL_FN T sigmoid_reciprocal(T e) {
  return reciprocal(e + 1.0f);
}

template <class T>
GFL_FN SigmoidParts<T> sigmoid_parts(T x, T e, T r) {
  const T smaller = e * r;
  return {select(x >= T(), r, smaller), select(x >= T(), smaller, r), e, log1p_slope(e)};
}

template <class T>
GFL_FN SigmoidParts<T> sigmoid_parts(T x) {
  const T e = sigmoid_exponential(x);
  return sigmoid_parts(x, e, sigmoid_reciprocal(e));
}

GFL_FN SigmoidParts<double> sigmoid_parts(double x) {
  const double e = ::exp(-::fabs(x));
  const double larger = 1.0 / (1.0 + e);
  const double smaller = e * larger;
  return {x >= 0 ? larger : smaller, x >= 0 ? smaller : larger, ::log1p(e), 1.0};
}

// Of a logit that was a half type, in little more than half of the instructions: a GPU reads two of those in the time that
// a float takes. q is exact relative to 1 alone, which its product with a softplus still is to 2e-6.
GFL_FN SigmoidParts<float> brief_sigmoid_parts(float x) {
  const float e = brief_exponential(-absolute(x));
  const float r = sigmoid_reciprocal(e);
  const float p = select(x >= 0.0f, r, e * r);
  return {p, 1.0f - p, e, brief_log1p_slope(e)};
}

template <class T>
GFL_FN T softplus(T x, const SigmoidParts<T>& parts) {
  return plus_log1p(select(x >= T(), x, T()), parts);
}

}  // namespace gfl
