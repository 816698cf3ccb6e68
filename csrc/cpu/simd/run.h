// Runs of values between memory of any dtype and stride, and buffers of the compute type that stay in the first cache.
#pragma once

#include "../../gfl.h"
#include "../../math/half.h"
#include "vec.h"

namespace gfl {

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

}  // namespace gfl
