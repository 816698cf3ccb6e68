// The four sides of a box in four neighbouring threads.
#pragma once

#include "../math/distribution_box_loss.h"
#include "reduce.cuh"

namespace gfl {
namespace cuda {

template <class C>
struct CountingValues {
  __device__ __forceinline__ C operator()(int k) const { return static_cast<C>(k); }
};

// The values that the four threads of a box hold, in the order of the sides.
template <class C>
__device__ __forceinline__ void gather_sides(C value, C (&sides)[kSides]) {
  const int first = static_cast<int>(threadIdx.x) % kWarp / kSides * kSides;
#pragma unroll
  for (int side = 0; side < kSides; ++side) sides[side] = __shfl_sync(kFullWarp, value, first + side);
}

template <class C>
__device__ __forceinline__ C of_side(int side, C left, C top, C right, C bottom) {
  return side == 0 ? left : side == 1 ? top : side == 2 ? right : bottom;
}

}  // namespace cuda
}  // namespace gfl
