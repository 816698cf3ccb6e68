// bfloat16 and float16 as bit patterns: widened on load, rounded once (to nearest, ties to even) on store.
#pragma once

#include "portable.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace gfl {

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

// What a dtype is computed in.
template <class T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class T>
using Compute = typename ComputeType<T>::type;

GFL_FN double widen(double x) { return x; }
GFL_FN float widen(float x) { return x; }
GFL_FN float widen(bfloat16 x) { return bits_float(static_cast<uint32_t>(x.bits) << 16); }
GFL_FN float widen(float16 x) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(x.bits));
#else
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // 2^112 moves the exponent bias from 15 to 127, subnormals included.
  return bits_float(sign | float_bits(bits_float(magnitude << 13) * bits_float(0x77800000u)));
#endif
}

template <class T>
struct Narrow;
template <>
struct Narrow<double> {
  static GFL_MEMBER double from(double x) { return x; }
};
template <>
struct Narrow<float> {
  static GFL_MEMBER float from(float x) { return x; }
};
template <>
struct Narrow<bfloat16> {
  static GFL_MEMBER bfloat16 from(float x) {
#if defined(__CUDA_ARCH__)
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
    const uint32_t bits = float_bits(x);
    if (x != x) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
#endif
  }
};
template <>
struct Narrow<float16> {
  static GFL_MEMBER float16 from(float x) {
#if defined(__CUDA_ARCH__)
    return {__half_as_ushort(__float2half_rn(x))};
#else
    const uint32_t bits = float_bits(x);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
    if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
    if (magnitude < 0x38800000u) {
      // Subnormal: adding 0.5 leaves the value, rounded to a multiple of 2^-24, in the low bits of the mantissa.
      const float shifted = bits_float(magnitude) + 0.5f;
      return {static_cast<uint16_t>(sign | (float_bits(shifted) - 0x3f000000u))};
    }
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
#endif
  }
};

template <class T>
GFL_FN T narrow(Compute<T> x) {
  return Narrow<T>::from(x);
}

}  // namespace gfl
