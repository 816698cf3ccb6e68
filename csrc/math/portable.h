// What g++, clang and nvcc need to agree on, and the primitives that differ between a scalar and a SIMD vector.
//
// Every formula in this folder is a template over T: float or double (a CUDA thread, a tail, a positive) or a vector of
// floats. cpu/simd/vec.h overloads the primitives below for vectors. It has to come before the formulas, since neither
// kind has a namespace in which a compiler would look later; cpu/simd/formulas.h sees to it.
//
// Both compilers run with contraction off, so that a formula rounds alike everywhere; where a fused step is wanted,
// `fused` says so.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../gfl.h"

#if defined(__CUDACC__)
#define GFL_FN static __host__ __device__ __forceinline__
#define GFL_MEMBER __host__ __device__ __forceinline__
#else
#define GFL_FN static inline __attribute__((always_inline))
#define GFL_MEMBER inline __attribute__((always_inline))
#define GFL_NOINLINE static __attribute__((noinline))
#endif

namespace gfl {

template <class T>
struct LossGrad {
  T loss;
  T grad;
};

// The scale of a reduced loss, without its avg_factor, which only the device can read.
GFL_FN double whole_scale(const gfl_reduction& reduction) {
  return reduction.scale / static_cast<double>(reduction.divisor > 0 ? reduction.divisor : 1);
}

// A parameter in the formula's own precision.
template <class T>
struct Constant {
  static GFL_MEMBER T of(double value) { return T() + static_cast<float>(value); }
};
template <>
struct Constant<double> {
  static GFL_MEMBER double of(double value) { return value; }
};
template <class T>
GFL_FN T constant(double value) {
  return Constant<T>::of(value);
}
// An index, without the detour through double that a GPU would really take.
template <class T>
GFL_FN T constant(int value) {
  return T() + static_cast<float>(value);
}

GFL_FN float select(bool condition, float yes, float no) { return condition ? yes : no; }
GFL_FN double select(bool condition, double yes, double no) { return condition ? yes : no; }
GFL_FN bool any_lane(bool condition) { return condition; }
GFL_FN float absolute(float x) { return fabsf(x); }
GFL_FN double absolute(double x) { return fabs(x); }
GFL_FN float square_root(float x) { return sqrtf(x); }
GFL_FN double square_root(double x) { return ::sqrt(x); }
GFL_FN float fused(float a, float b, float c) { return fmaf(a, b, c); }
GFL_FN double fused(double a, double b, double c) { return ::fma(a, b, c); }

// The larger of two, for whoever does not mind which it is where one is NaN: one instruction, where `maximum` takes five.
GFL_FN float larger(float a, float b) {
#if defined(__CUDA_ARCH__)
  return fmaxf(a, b);
#else
  return a > b ? a : b;
#endif
}
GFL_FN double larger(double a, double b) { return a > b ? a : b; }

// Towards zero, for |x| < 2^31.
GFL_FN float truncated(float x) { return static_cast<float>(static_cast<int32_t>(x)); }
GFL_FN double truncated(double x) { return static_cast<double>(static_cast<int32_t>(x)); }

// 1 / x for a finite and normal x: correctly rounded on a CPU. On a GPU the instruction's own 1 ulp reaches the result, in
// every sigmoid and softmax.
GFL_FN float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}
GFL_FN double reciprocal(double x) { return 1.0 / x; }

GFL_FN uint32_t float_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

GFL_FN float bits_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// p 2^n; see nearest_exponent.
GFL_FN float times_power_of_two(float p, float shifted) { return p * bits_float((float_bits(shifted) + 127u) << 23); }

// x = mantissa * 2^n with mantissa in [sqrt(1/2), sqrt(2)), for a normal x > 0; returns n.
GFL_FN float split_exponent(float x, float& mantissa) {
  const uint32_t bits = float_bits(x);
  const int32_t n = static_cast<int32_t>(bits - 0x3f3504f3u) >> 23;
  mantissa = bits_float(bits - (static_cast<uint32_t>(n) << 23));
  return static_cast<float>(n);
}

}  // namespace gfl
