// What the assigners share on a GPU: the cells that a box covers among the threads of a block, the best candidates of a
// ground truth, and claims.
#pragma once

#include "../math/assignment.h"
#include "cuda_ops.h"
#include "index.cuh"
#include "warp.cuh"

namespace gfl {
namespace cuda {

constexpr int kAssignThreads = 256;  // for each gt
constexpr int kAssignWarps = kAssignThreads / kWarp;

struct CompareExchange {
  __device__ __forceinline__ int32_t operator()(int32_t* address, int32_t expected, int32_t desired) const {
    return atomicCAS(address, expected, desired);
  }
};

// Calls use(there, anchor) with the cells of a range, in whole warps: `there` is false for a lane that has none.
template <class Use>
__device__ __forceinline__ void for_each_cell(const Cells& cells, const Use& use) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t count = cells.count();
  for (int64_t i = static_cast<int64_t>(threadIdx.x) - lane; i < count; i += kAssignThreads) {
    const bool there = i + lane < count;
    use(there, there ? cells.anchor(i + lane) : 0);
  }
}

// With the cells that a box covers on all levels.
template <class T, class Use>
__device__ __forceinline__ void for_each_covered(const AnchorGrid& grid, const Box<T>& box, const Use& use) {
  for (int i = 0; i < grid.levels.count; ++i) for_each_cell(grid.covered(i, box), use);
}

template <class T>
__device__ __forceinline__ T shuffled(T value, int bits) {
  return __shfl_xor_sync(kFullWarp, value, bits);
}

// The best `room` candidates that a warp was offered, in shared memory and in no order. All lanes know the worst.
template <class T>
class WarpTopList {
 public:
  __device__ __forceinline__ WarpTopList(Candidate<T>* items, int room)
      : items_(items), room_(room), size_(0), worst_place_(0), worst_{} {}

  __device__ __forceinline__ int size() const { return size_; }
  __device__ __forceinline__ bool full() const { return size_ == room_; }
  __device__ __forceinline__ const Candidate<T>& worst() const { return worst_; }

  // What each lane has, or nothing. All lanes call it together.
  __device__ __forceinline__ void offer(bool there, const Candidate<T>& own) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    uint32_t offered = __ballot_sync(kFullWarp, there && (!full() || better(own, worst_)));
    for (; offered; offered &= offered - 1) {
      const int from = __ffs(static_cast<int>(offered)) - 1;
      const Candidate<T> next{__shfl_sync(kFullWarp, own.value, from), __shfl_sync(kFullWarp, own.anchor, from)};
      if (full() && !better(next, worst_)) continue;
      const int place = full() ? worst_place_ : size_++;
      if (lane == 0) items_[place] = next;
      __syncwarp();
      if (full()) find_worst(lane);
    }
  }

 private:
  __device__ __forceinline__ void find_worst(int lane) {
    Candidate<T> worst{static_cast<T>(HUGE_VAL), -1};
    int place = 0;
    for (int i = lane; i < room_; i += kWarp) {
      const Candidate<T> item = items_[i];
      if (better(item, worst)) continue;
      worst = item;
      place = i;
    }
    for (int bits = kWarp / 2; bits > 0; bits /= 2) {
      const Candidate<T> other{shuffled(worst.value, bits), shuffled(worst.anchor, bits)};
      const int other_place = shuffled(place, bits);
      if (better(other, worst)) continue;
      worst = other;
      place = other_place;
    }
    worst_ = worst;
    worst_place_ = place;
    __syncwarp();  // all have read before one writes again
  }

  Candidate<T>* items_;
  int room_;
  int size_;
  int worst_place_;
  Candidate<T> worst_;
};

// Where a warp has its list.
template <class T>
__device__ __forceinline__ Candidate<T>* own_items(int room) {
  return dynamic_shared<Candidate<T>>() + static_cast<int>(threadIdx.x) / kWarp * room;
}

struct ListSizes {
  int of_warp[kAssignWarps];
};

// The lists of a block's warps, one behind the other in shared memory, become the first warp's. All threads call it; the
// first warp alone may read the list afterwards, and __syncthreads() must come before the lists are written again.
template <class T>
__device__ __forceinline__ void merge_lists(WarpTopList<T>& list, Candidate<T>* items, int room) {
  int (&sizes)[kAssignWarps] = static_shared<ListSizes>().of_warp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (lane == 0) sizes[warp] = list.size();
  __syncthreads();
  for (int other = 1; warp == 0 && other < kAssignWarps; ++other) {
    for (int i = 0; i < sizes[other]; i += kWarp) {
      const bool there = i + lane < sizes[other];
      list.offer(there, there ? items[other * room + i + lane] : Candidate<T>{T(), 0});
    }
  }
}

// The value that comes first among the lanes' by `before`, which is a total order.
template <class Value, class Before>
__device__ __forceinline__ Value first_of_warp(Value value, const Before& before) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    const Value other = value.shuffled(bits);
    if (before(other, value)) value = other;
  }
  return value;
}

// Every contested anchor gets the gt that find(i) says, which a whole warp calls; then use(i, gt) is called with every
// anchor that has one.
template <class Find, class Use>
__device__ __forceinline__ void settle_all(const int32_t* winners, int64_t size, const Find& find, const Use& use) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAssignThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kAssignThreads + threadIdx.x - lane; first < size;
       first += step) {
    const int64_t i = first + lane;
    int32_t winner = i < size ? winners[i] : GFL_BACKGROUND;
    uint32_t contested = __ballot_sync(kFullWarp, winner == kContested);
    for (; contested; contested &= contested - 1) {
      const int of_lane = __ffs(static_cast<int>(contested)) - 1;
      const int32_t found = find(first + of_lane);
      if (lane == of_lane) winner = found;
    }
    if (i < size && winner >= 0) use(i, winner);
  }
}

}  // namespace cuda
}  // namespace gfl
