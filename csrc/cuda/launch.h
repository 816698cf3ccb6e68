// All that the ops need of the CUDA runtime: the device, the size of a grid, a launch, and an error's words.
//
// Nothing here allocates, waits or touches memory, so that every op can be captured in a CUDA graph.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <utility>

#include "../error.h"
#include "../gfl.h"

namespace gfl {
namespace cuda {

constexpr int kMaxBlocks = 2048;  // of any grid, and so of the partial sums in a workspace

struct Grid {
  int blocks;
  int threads;
  int shared_bytes = 0;
};

// Shared memory is taken through these two alone. They and the launch are all in which tests/support/cuda_shim/, which
// runs the kernels on a host and counts their shared bytes, differs from CUDA.

// As much as the launch asked for.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#if defined(GFL_HOST_SHIM)
  return static_cast<T*>(shim::dynamic_shared());
#else
  extern __shared__ __align__(16) unsigned char gfl_dynamic_shared[];
  return reinterpret_cast<T*>(gfl_dynamic_shared);
#endif
}

// Of a size that the compiler knows, once for each type: a struct that is named after what the threads share.
template <class T>
__device__ __forceinline__ T& static_shared() {
#if defined(GFL_HOST_SHIM)
  return shim::static_shared<T>();
#else
  __shared__ T memory;
  return memory;
#endif
}

// Whether the process has a context on a device, which takes hundreds of megabytes of its memory. The runtime cannot say;
// where the driver cannot be asked either, it has.
inline bool has_context(int device) {
  using GetState = int (*)(int device, unsigned* flags, int* active);
  static const GetState get_state = [] {
    constexpr const char* name = "cuDevicePrimaryCtxGetState";
    void* found = nullptr;
#if CUDART_VERSION >= 12050
    cudaGetDriverEntryPointByVersion(name, &found, 7000, cudaEnableDefault);
#else
    cudaGetDriverEntryPoint(name, &found, cudaEnableDefault);
#endif
    return reinterpret_cast<GetState>(found);
  }();
  unsigned flags = 0;
  int active = 1;
  if (get_state) get_state(device, &flags, &active);
  return active != 0;
}

// A stream whose device is current while this object lives. The one before it is so again afterwards, unless that would
// make the process's first context there. The first failure is kept, and nothing runs after it.
class Stream {
 public:
  explicit Stream(const gfl_device& device) : index_(device.index), stream_(static_cast<cudaStream_t>(device.stream)) {
    if (!check(cudaGetDevice(&previous_), "cudaGetDevice")) return;
    if (previous_ == index_) return;
    switched_ = check(cudaSetDevice(index_), "cudaSetDevice");
  }
  ~Stream() {
    if (switched_ && has_context(previous_)) cudaSetDevice(previous_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int status() const { return status_; }

  // Enough blocks to fill the device, each taking a share of the work items; never 0, so that a sum of nothing is
  // written too.
  int blocks(int64_t items, int per_multiprocessor) {
    const int64_t most = static_cast<int64_t>(multiprocessors()) * per_multiprocessor;
    const int64_t wanted = items < most ? items : most;
    return static_cast<int>(wanted < 1 ? 1 : wanted > kMaxBlocks ? kMaxBlocks : wanted);
  }

  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), const Grid& grid, const Arguments&... arguments) {
    if (status_ != GFL_OK) return;
#if defined(GFL_HOST_SHIM)
    shim::launch(kernel, grid.blocks, grid.threads, grid.shared_bytes, arguments...);
#else
    kernel<<<grid.blocks, grid.threads, grid.shared_bytes, stream_>>>(arguments...);
#endif
    check(cudaGetLastError(), "kernel launch");
  }

 private:
  bool check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return true;
    cudaGetLastError();  // the runtime would report it again to whoever asks next
    status_ = fail(GFL_ERROR_CUDA, "CUDA device %d: %s: %s", index_, what, cudaGetErrorString(error));
    return false;
  }

  // Asked once for each device: an attribute query is not free, and it never changes.
  int multiprocessors() {
    constexpr int kDevices = 64;
    static std::atomic<int> counts[kDevices];
    const bool cached = index_ >= 0 && index_ < kDevices;
    int count = cached ? counts[index_].load(std::memory_order_relaxed) : 0;
    if (count > 0 || status_ != GFL_OK) return count;
    if (!check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, index_), "multiprocessor count"))
      return 0;
    if (cached) counts[index_].store(count, std::memory_order_relaxed);
    return count;
  }

  int index_;
  cudaStream_t stream_;
  int previous_ = 0;
  bool switched_ = false;
  int status_ = GFL_OK;
};

}  // namespace cuda
}  // namespace gfl
