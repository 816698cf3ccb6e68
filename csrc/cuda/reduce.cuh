// Deterministic sums: each block leaves one double, and one last block adds them in a fixed order.
#pragma once

#include <cuda_runtime.h>

#include "../math/portable.h"
#include "launch.h"

namespace gfl {
namespace cuda {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kWarp = 32;

// What a reduced loss is multiplied with; see gfl_reduction.
template <class C>
struct Scale {
  double scale;
  const C* avg_factor;

  explicit Scale(const gfl_reduction& reduction)
      : scale(whole_scale(reduction)), avg_factor(static_cast<const C*>(reduction.avg_factor)) {}

  __device__ __forceinline__ C value() const {
    const C whole = constant<C>(scale);
    return avg_factor ? whole / (*avg_factor + constant<C>(1.1920928955078125e-07)) : whole;
  }
};

struct WarpSums {
  double of_warp[kWarp];
};

// Of all threads of a block of whole warps. Thread 0 has the sum.
__device__ __forceinline__ double block_sum(double value) {
  double (&warp_sums)[kWarp] = static_shared<WarpSums>().of_warp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_down_sync(kFullWarp, value, offset);
  if (lane == 0) warp_sums[warp] = value;
  __syncthreads();
  if (warp == 0) {
    value = lane < static_cast<int>(blockDim.x) / kWarp ? warp_sums[lane] : 0.0;
    for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_down_sync(kFullWarp, value, offset);
  }
  __syncthreads();  // the next call writes warp_sums again
  return value;
}

// The sums of up to two losses. A grid of one block needs no second stage and writes the losses itself.
template <class C>
struct LossSums {
  double* partials;  // workspace: kMaxBlocks for each loss
  C* losses[2];
  Scale<C> scale;

  __device__ __forceinline__ void add_block(int which, double thread_value) const {
    const double sum = block_sum(thread_value);
    if (threadIdx.x != 0) return;
    if (gridDim.x == 1) {
      write(which, sum);
    } else {
      partials[which * kMaxBlocks + blockIdx.x] = sum;
    }
  }
  __device__ __forceinline__ void write(int which, double sum) const {
    *(which == 0 ? losses[0] : losses[1]) = static_cast<C>(sum * static_cast<double>(scale.value()));
  }
};

// Block 0 adds the first loss, block 1 the second.
template <class C>
__global__ void __launch_bounds__(256) finish_sums(const LossSums<C> sums, int count) {
  const double* partials = sums.partials + static_cast<int>(blockIdx.x) * kMaxBlocks;
  double sum = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) sum += partials[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums.write(static_cast<int>(blockIdx.x), sum);
}

// To be called after a kernel of `blocks` blocks, all of which called add_block for each of `losses` losses.
template <class C>
void finish(Stream& stream, const LossSums<C>& sums, int blocks, int losses = 1) {
  if (blocks > 1) stream.launch(finish_sums<C>, Grid{losses, 256}, sums, blocks);
}

}  // namespace cuda
}  // namespace gfl
