// A SIMD register of floats as the compiler's own vector type, and the primitives that math/portable.h has for scalars.
// Kernels include it by way of formulas.h. Each instruction set compiles this file anew; everything in it is internal to
// the file that includes it, so that no AVX-512 code can be linked into a baseline function.
#pragma once

#if defined(GFL_FORMULAS)
#error "csrc/math/ was included before the vectors, and would not find them: include cpu/simd/formulas.h instead"
#endif

#include "../../error.h"
#include "../../gfl.h"
#include "../../math/half.h"

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

// ---- runs of values, between memory of any dtype and stride and buffers of the compute type -----------

// Asks for `bytes` of what lies 4 KB ahead, to read (0) or to write (1): rows that come in bursts and are then worked on
// leave the processor no pattern by which to look ahead by itself.
template <int write>
GFL_FN void prefetch_ahead(const void* at, int64_t bytes) {
  constexpr int line_bytes = 64;
  const char* ahead = static_cast<const char*>(at) + 4096;
  for (int64_t byte = 0; byte < bytes; byte += line_bytes) __builtin_prefetch(ahead + byte, write);
}

// Nothing to convert: whole vectors, without the questions that a compiler asks before it makes vectors of a loop.
template <class T>
GFL_FN void copy_run(const T* in, int n, T* out) {
  constexpr int width = Lanes<T>::width;
  int i = 0;
  for (; i + width <= n; i += width) store(out + i, load(in + i));
  for (; i < n; ++i) out[i] = in[i];
}
GFL_FN void widen_run(const float* in, int n, float* out) { copy_run(in, n, out); }
GFL_FN void widen_run(const double* in, int n, double* out) { copy_run(in, n, out); }
GFL_FN void narrow_run(const float* in, int n, float* out) { copy_run(in, n, out); }
GFL_FN void narrow_run(const double* in, int n, double* out) { copy_run(in, n, out); }

GFL_FN void widen_run(const float16* in, int n, float* out) {
  int i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) {
    _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i))));
  }
#elif defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
  }
#endif
  for (; i < n; ++i) out[i] = widen(in[i]);
}

GFL_FN void narrow_run(const float* in, int n, float16* out) {
  int i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                        _mm512_cvtps_ph(_mm512_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  for (; i < n; ++i) out[i] = narrow<float16>(in[i]);
}

template <class S, class T>
GFL_FN void widen_run(const S* in, int n, T* out) {
  for (int i = 0; i < n; ++i) out[i] = static_cast<T>(widen(in[i]));
}

template <class S, class T>
GFL_FN void narrow_run(const T* in, int n, S* out) {
  for (int i = 0; i < n; ++i) out[i] = narrow<S>(static_cast<Compute<S>>(in[i]));
}

template <class S, class T>
GFL_FN void load_strided(const void* data, int64_t offset, int64_t stride, int n, T* out) {
  const S* in = static_cast<const S*>(data) + offset;
  if (stride == 1) return widen_run(in, n, out);
  if (stride == 0) {
    const T value = static_cast<T>(widen(*in));
    for (int i = 0; i < n; ++i) out[i] = value;
    return;
  }
  for (int i = 0; i < n; ++i) out[i] = static_cast<T>(widen(in[i * stride]));
}

template <class S, class T>
GFL_FN void store_strided(const T* in, int n, void* data, int64_t offset, int64_t stride) {
  S* out = static_cast<S*>(data) + offset;
  if (stride == 1) return narrow_run(in, n, out);
  for (int i = 0; i < n; ++i) out[i * stride] = narrow<S>(static_cast<Compute<S>>(in[i]));
}

// The one switch over dtypes on the CPU: `out[i] = data[offset + i * stride]`, widened.
template <class T>
static inline void load_run(const void* data, int32_t dtype, int64_t offset, int64_t stride, int n, T* out) {
  switch (dtype) {
    case GFL_FLOAT64:
      return load_strided<double>(data, offset, stride, n, out);
    case GFL_FLOAT32:
      return load_strided<float>(data, offset, stride, n, out);
    case GFL_BFLOAT16:
      return load_strided<bfloat16>(data, offset, stride, n, out);
    default:
      return load_strided<float16>(data, offset, stride, n, out);
  }
}

template <class T>
static inline void store_run(const T* in, int n, void* data, int32_t dtype, int64_t offset, int64_t stride) {
  switch (dtype) {
    case GFL_FLOAT64:
      return store_strided<double>(in, n, data, offset, stride);
    case GFL_FLOAT32:
      return store_strided<float>(in, n, data, offset, stride);
    case GFL_BFLOAT16:
      return store_strided<bfloat16>(in, n, data, offset, stride);
    default:
      return store_strided<float16>(in, n, data, offset, stride);
  }
}

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<double> {
  static constexpr int32_t code = GFL_FLOAT64;
};
template <>
struct DtypeOf<float> {
  static constexpr int32_t code = GFL_FLOAT32;
};

GFL_FN bool is_float_dtype(int32_t dtype) { return dtype >= GFL_FLOAT64 && dtype <= GFL_FLOAT16; }

// Returns run(T()), a status, with the type that values of a dtype are computed in: double for doubles, float for all
// others. `name` is what an error calls them.
template <class Run>
GFL_FN int with_compute_type(int32_t dtype, const char* name, const Run& run) {
  if (!is_float_dtype(dtype)) return fail(GFL_ERROR_ARGUMENT, "unknown dtype %d of %s", dtype, name);
  return dtype == GFL_FLOAT64 ? run(double()) : run(float());
}

}  // namespace gfl
