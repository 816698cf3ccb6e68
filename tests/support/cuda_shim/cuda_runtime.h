// Test only: enough of CUDA to compile csrc/cuda/*.cu with a C++ compiler and run the kernels on the host.
//
//   g++ -x c++ -DGFL_HOST_SHIM -I tests/support/cuda_shim -I csrc ... csrc/cuda/distribution_focal_loss.cu
//
// Found in place of the real <cuda_runtime.h> by the order of include paths. Blocks run one after another; how the
// threads of a block run says block.h. Shared memory has its exact size and is full of NaN for each block, so that a read
// out of bounds, of another block's values or of unwritten ones shows. A launch whose kernel takes more of it than a GPU
// gives fails.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "block.h"

// ---- the language ----------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};

inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * static_cast<uint64_t>(b)) >> 32);
}

template <class Word>
void __stwb(Word* address, const Word& value) {
  *address = value;
}

// ---- barriers, shuffles, atomics -------------------------------------------------------------------

inline void __syncthreads() { shim::block_barrier(); }
inline int __syncthreads_or(int predicate) { return shim::block_any(predicate != 0); }
inline void __syncwarp(unsigned = 0xffffffffu) { shim::warp_barrier(); }

template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return shim::exchange(value, lane);
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned offset) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int from = lane + static_cast<int>(offset);
  return shim::exchange(value, from < 32 ? from : lane);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int bits) {
  return shim::exchange(value, (static_cast<int>(threadIdx.x) % 32) ^ bits);
}
inline uint32_t __reduce_or_sync(unsigned, uint32_t bits) { return shim::united(bits); }
inline uint32_t __reduce_min_sync(unsigned, uint32_t number) { return shim::least(number); }
inline uint32_t __ballot_sync(unsigned, bool vote) {
  return shim::united(vote ? 1u << threadIdx.x % shim::kWarpSize : 0u);
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(long long bits) { return __builtin_popcountll(static_cast<unsigned long long>(bits)); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }

inline uint32_t atomicAdd(uint32_t* address, uint32_t value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
inline uint32_t atomicMin(uint32_t* address, uint32_t value) {
  uint32_t before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value < before &&
         !__atomic_compare_exchange_n(address, &before, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}
template <class Word>
Word shim_atomic_max(Word* address, Word value) {
  Word before = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value > before &&
         !__atomic_compare_exchange_n(address, &before, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}
inline uint32_t atomicMax(uint32_t* address, uint32_t value) { return shim_atomic_max(address, value); }
inline unsigned long long atomicMax(unsigned long long* address, unsigned long long value) {
  return shim_atomic_max(address, value);
}
inline uint32_t atomicOr(uint32_t* address, uint32_t bits) {
  return __atomic_fetch_or(address, bits, __ATOMIC_RELAXED);
}
inline unsigned long long atomicOr(unsigned long long* address, unsigned long long bits) {
  return __atomic_fetch_or(address, bits, __ATOMIC_RELAXED);
}
inline uint32_t atomicAnd(uint32_t* address, uint32_t bits) {
  return __atomic_fetch_and(address, bits, __ATOMIC_RELAXED);
}
inline int atomicCAS(int* address, int expected, int desired) {
  __atomic_compare_exchange_n(address, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

// ---- the runtime: two devices with one multiprocessor each, so that small inputs fill a grid ----------

#define CUDART_VERSION 13000

typedef void* cudaStream_t;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101
};
enum { cudaEnableDefault = 0 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };

inline cudaError_t& shim_last_error() {
  static cudaError_t error = cudaSuccess;
  return error;
}
inline cudaError_t shim_report(cudaError_t error) {
  if (error != cudaSuccess) shim_last_error() = error;
  return error;
}
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = shim_last_error();
  shim_last_error() = cudaSuccess;
  return error;
}
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    default:
      return "invalid device ordinal";
  }
}

namespace shim {

inline thread_local int current_device = 0;
inline std::atomic<unsigned> contexts{0};  // a bit for each device that was made current or launched on

inline bool exists(int device) { return device == 0 || device == 1; }
inline int get_context_state(int device, unsigned* flags, int* active) {
  *flags = 0;
  *active = static_cast<int>(contexts >> device & 1u);
  return 0;
}

}  // namespace shim

inline cudaError_t cudaGetDevice(int* device) {
  *device = shim::current_device;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  if (!shim::exists(device)) return shim_report(cudaErrorInvalidDevice);
  shim::current_device = device;
  shim::contexts |= 1u << device;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  *value = 1;
  return shim_report(shim::exists(device) ? cudaSuccess : cudaErrorInvalidDevice);
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
inline cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long) {
  if (std::strcmp(name, "cuDevicePrimaryCtxGetState") == 0) {
    *function = reinterpret_cast<void*>(&shim::get_context_state);
  }
  return cudaSuccess;
}

namespace shim {

inline std::atomic<int64_t> launches{0};  // since the program began

// Of a block, static and dynamic, where it has not asked for more. From sm_80 on CUDA keeps 1 KB of each block's for itself;
// whether that counts is not said, so here it does.
constexpr int kMostSharedBytes = 48 * 1024 - 1024;

// What stands for kernel<<<blocks, threads, shared_bytes>>>(arguments...).
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int blocks, int threads, int shared_bytes, const Arguments&... arguments) {
  if (blocks < 1 || threads < 1 || threads > 1024 || threads % 32 != 0) {
    shim_report(cudaErrorInvalidConfiguration);
    return;
  }
  ++launches;
  contexts |= 1u << current_device;
  const int static_bytes = run_grid(blocks, threads, shared_bytes, [&] { kernel(arguments...); });
  if (static_bytes + shared_bytes > kMostSharedBytes) shim_report(cudaErrorInvalidValue);
}

}  // namespace shim
