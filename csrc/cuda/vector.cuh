// Values that a thread loads and stores together, 16 bytes at a time.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../math/half.h"

namespace gfl {
namespace cuda {

// How many values fill 16 bytes.
template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));

inline bool aligned(const void* data, int bytes) { return reinterpret_cast<uintptr_t>(data) % bytes == 0; }

// N neighbours, starting on a boundary of their size (of 16 bytes where they are more). Kept as words until they are
// used, so that several loads are in flight.
template <class T, int N>
struct Vector {
  using Word = std::conditional_t<N * sizeof(T) % 16 == 0, uint4, uint2>;
  static constexpr int kWords = N * sizeof(T) / sizeof(Word);
  static_assert(kWords * sizeof(Word) == N * sizeof(T), "whole words only");
  Word words[kWords];

  static __device__ __forceinline__ Vector load(const T* data) {
    Vector vector;
#pragma unroll
    for (int i = 0; i < kWords; ++i) vector.words[i] = reinterpret_cast<const Word*>(data)[i];
    return vector;
  }

  // The first `count` of them, one by one; 0 for the rest.
  static __device__ __forceinline__ Vector load_some(const T* data, int count) {
    T values[N];
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = i < count ? data[i] : T();
    Vector vector;
    memcpy(&vector, values, sizeof vector);
    return vector;
  }

  __device__ __forceinline__ void store(T* data) const {
#pragma unroll
    for (int i = 0; i < kWords; ++i) reinterpret_cast<Word*>(data)[i] = words[i];
  }

  // The same in global memory, for places where the compiler splits the plain store into those of narrower words.
  __device__ __forceinline__ void store_unsplit(T* data) const {
#pragma unroll
    for (int i = 0; i < kWords; ++i) __stwb(reinterpret_cast<Word*>(data) + i, words[i]);
  }

  __device__ __forceinline__ void store_some(T* data, int count) const {
    T values[N];
    memcpy(values, this, sizeof values);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i < count) data[i] = values[i];
    }
  }

  template <class C>
  __device__ __forceinline__ void widen_to(C (&wide)[N]) const {
    if constexpr (std::is_same<T, bfloat16>::value) return widen_pairs_to(wide);
    T values[N];
    memcpy(values, this, sizeof values);
#pragma unroll
    for (int i = 0; i < N; ++i) wide[i] = widen(values[i]);
  }

  // A bfloat16 is the upper half of a float: one instruction each, where picking it first would take two.
  __device__ __forceinline__ void widen_pairs_to(float (&wide)[N]) const {
    uint32_t pairs[N / 2];
    memcpy(pairs, this, sizeof pairs);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      wide[2 * i] = bits_float(pairs[i] << 16);
      wide[2 * i + 1] = bits_float(pairs[i] & 0xffff0000u);
    }
  }

  static __device__ __forceinline__ Vector narrowed(const Compute<T> (&wide)[N]) {
    T values[N];
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = narrow<T>(wide[i]);
    Vector vector;
    memcpy(&vector, values, sizeof vector);
    return vector;
  }
};

}  // namespace cuda
}  // namespace gfl
