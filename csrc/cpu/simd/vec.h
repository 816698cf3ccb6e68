// A SIMD register of floats as the compiler's own vector type, and the primitives that math/portable.h has for scalars.
// Kernels include it by way of formulas.h. Each instruction set compiles this file anew; everything in it is internal to
// the file that includes it, so that no AVX-512 code can be linked into a baseline function.
#pragma once

#if defined(GFL_FORMULAS)
#error "csrc/math/ was included before the vectors, and would not find them: include cpu/simd/formulas.h instead"
#endif

#include "../../math/portable.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define GFL_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define GFL_VECTOR_BYTES 32
#else
#define GFL_VECTOR_BYTES 16
#endif

namespace gfl {

typedef float VecF __attribute__((vector_size(GFL_VECTOR_BYTES)));
typedef int32_t VecI __attribute__((vector_size(GFL_VECTOR_BYTES)));
typedef uint32_t VecU __attribute__((vector_size(GFL_VECTOR_BYTES)));
typedef float VecFUnaligned __attribute__((vector_size(GFL_VECTOR_BYTES), aligned(4), may_alias));
typedef int32_t VecIUnaligned __attribute__((vector_size(GFL_VECTOR_BYTES), aligned(4), may_alias));

GFL_FN VecF select(VecI mask, VecF yes, VecF no) { return mask ? yes : no; }
GFL_FN VecU float_bits(VecF x) { return (VecU)x; }
GFL_FN VecF bits_float(VecU bits) { return (VecF)bits; }
GFL_FN VecF absolute(VecF x) { return bits_float(float_bits(x) & 0x7fffffffu); }
GFL_FN VecF truncated(VecF x) { return __builtin_convertvector(__builtin_convertvector(x, VecI), VecF); }

GFL_FN VecF fused(VecF a, VecF b, VecF c) {
#if defined(__AVX512F__)
  return (VecF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (VecF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (VecF)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

GFL_FN VecF times_power_of_two(VecF p, VecF shifted) { return p * bits_float((float_bits(shifted) + 127u) << 23); }

GFL_FN VecF split_exponent(VecF x, VecF& mantissa) {
  const VecU bits = float_bits(x);
  const VecI n = (VecI)(bits - 0x3f3504f3u) >> 23;
  mantissa = bits_float(bits - ((VecU)n << 23));
  return __builtin_convertvector(n, VecF);
}

// The vector that goes with a compute type. double is not worth vectors: its exp and log come from the C library.
template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  using type = VecF;
  static constexpr int width = GFL_VECTOR_BYTES / 4;
};
template <>
struct Lanes<double> {
  using type = double;
  static constexpr int width = 1;
};
template <class T>
using Vector = typename Lanes<T>::type;

GFL_FN VecF load(const float* p) { return *reinterpret_cast<const VecFUnaligned*>(p); }
GFL_FN double load(const double* p) { return *p; }
GFL_FN VecI load(const int32_t* p) { return *reinterpret_cast<const VecIUnaligned*>(p); }
GFL_FN void store(float* p, VecF x) { *reinterpret_cast<VecFUnaligned*>(p) = x; }
GFL_FN void store(double* p, double x) { *p = x; }

GFL_FN VecF larger(VecF a, VecF b) {
#if defined(__AVX512F__)
  return (VecF)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (VecF)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

// A division, which every processor rounds alike. rcp and its kin give what a maker's own table holds, and one step of
// Newton's behind them leaves 1 / 1 short of 1 on some.
GFL_FN VecF reciprocal(VecF x) { return 1.0f / x; }

// in[i * stride] in lane i.
GFL_FN VecF load_strided_lanes(const float* in, int64_t stride) {
#if defined(__AVX512F__)
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return (VecF)_mm512_i32gather_ps(_mm512_mullo_epi32(lane, _mm512_set1_epi32(static_cast<int>(stride))), in, 4);
#else
  VecF x;
  for (int i = 0; i < GFL_VECTOR_BYTES / 4; ++i) x[i] = in[i * stride];
  return x;
#endif
}

// Masks: -1 in the lanes where a comparison of vectors holds, a bool for scalars.
GFL_FN uint32_t lane_bits(VecI mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)mask));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_ps((__m128)mask));
#else
  uint32_t bits = 0;
  for (int i = 0; i < Lanes<float>::width; ++i) bits |= static_cast<uint32_t>(mask[i] != 0) << i;
  return bits;
#endif
}
GFL_FN bool any_lane(VecI mask) { return lane_bits(mask) != 0; }

GFL_FN VecI lane_numbers() {
  VecI lane;
  for (int i = 0; i < Lanes<float>::width; ++i) lane[i] = i;
  return lane;
}

// The last argument says which kind of mask is wanted.
GFL_FN VecI lanes_below(int count, VecF) { return lane_numbers() < count; }
GFL_FN bool lanes_below(int count, double) { return count > 0; }
GFL_FN VecI equal_lanes(const int32_t* values, int32_t value, VecF) { return load(values) == value; }
GFL_FN bool equal_lanes(const int32_t* values, int32_t value, double) { return *values == value; }

// Lanes are added one after the other, in double: the order never depends on threads.
GFL_FN double lane_sum(VecF x) {
  double sum = 0;
  for (int i = 0; i < Lanes<float>::width; ++i) sum += static_cast<double>(x[i]);
  return sum;
}
GFL_FN double lane_sum(double x) { return x; }

}  // namespace gfl
