// Bits of the lanes of a warp, and sets of 64 as words.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "reduce.cuh"

namespace gfl {
namespace cuda {

constexpr int kWordBits = 64;

__host__ __device__ __forceinline__ int64_t words_for(int64_t bits) { return (bits + kWordBits - 1) / kWordBits; }

// The set of numbers below this one, for 0 to 63.
__device__ __forceinline__ uint64_t below(int number) { return (uint64_t{1} << number) - 1; }
__device__ __forceinline__ bool has(uint64_t set, int number) { return set >> number & 1; }
__device__ __forceinline__ int size_of(uint64_t set) { return __popcll(static_cast<long long>(set)); }

// The set of those for which a condition holds, each lane asking for its own number and for the one 32 above.
__device__ __forceinline__ uint64_t where(bool low, bool high) {
  const uint32_t lower = __ballot_sync(kFullWarp, low);
  return static_cast<uint64_t>(__ballot_sync(kFullWarp, high)) << kWarp | lower;
}

__device__ __forceinline__ uint32_t least_of_warp(uint32_t number) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  return __reduce_min_sync(kFullWarp, number);
#else
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const uint32_t other = __shfl_xor_sync(kFullWarp, number, offset);
    number = other < number ? other : number;
  }
  return number;
#endif
}

__device__ __forceinline__ uint32_t united(uint32_t bits) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  return __reduce_or_sync(kFullWarp, bits);
#else
  for (int offset = kWarp / 2; offset > 0; offset /= 2) bits |= __shfl_xor_sync(kFullWarp, bits, offset);
  return bits;
#endif
}
// Of the sets that the lanes have.
__device__ __forceinline__ uint64_t united(uint64_t set) {
  return static_cast<uint64_t>(united(static_cast<uint32_t>(set >> 32))) << 32 | united(static_cast<uint32_t>(set));
}

}  // namespace cuda
}  // namespace gfl
