// Scaling a saved gradient in place, and the size of the workspace.
#include "cuda_ops.h"
#include "dispatch.cuh"
#include "launch.h"
#include "vector.cuh"

namespace gfl {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;

template <class T>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(T* data, int64_t size, int64_t packs, const Compute<T>* factor) {
  constexpr int N = kPack<T>;
  const Compute<T> by = *factor;
  if (by == constant<Compute<T>>(1.0)) return;  // what a mean's own backward passes on: nothing to read or write
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t start = thread; start < packs; start += threads * kUnroll) {
    Vector<T, N> loaded[kUnroll];
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {
      if (start + j * threads < packs) loaded[j] = Vector<T, N>::load(data + (start + j * threads) * N);
    }
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {
      if (start + j * threads >= packs) continue;
      Compute<T> values[N];
      loaded[j].widen_to(values);
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] = values[i] * by;
      Vector<T, N>::narrowed(values).store(data + (start + j * threads) * N);
    }
  }
  for (int64_t i = packs * N + thread; i < size; i += threads) data[i] = narrow<T>(widen(data[i]) * by);
}

}  // namespace

int scale_gradient(const gfl_device& device, void* data, int32_t dtype, int64_t size, const void* factor) {
  if (size == 0) return GFL_OK;
  Stream stream(device);
  return with_float_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t packs = aligned(data, 16) ? size / kPack<T> : 0;
    const int blocks = stream.blocks((size / kPack<T> + kThreads * kUnroll - 1) / (kThreads * kUnroll), 8);
    stream.launch(scale_kernel<T>, Grid{blocks, kThreads}, static_cast<T*>(data), size, packs,
                  static_cast<const Compute<T>*>(factor));
    return stream.status();
  });
}

// For each loss: one partial sum a block, of however many.
int64_t workspace_bytes(int64_t, int64_t) { return kMaxBlocks * static_cast<int64_t>(sizeof(double)); }

}  // namespace cuda
}  // namespace gfl
