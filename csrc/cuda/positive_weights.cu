// The weight of every positive, its highest probability of a class, and what the losses are divided by: eight lanes for
// each positive of a tile.
#include "../math/elementary.h"
#include "cuda_ops.h"
#include "dispatch.cuh"
#include "positives.cuh"

namespace gfl {
namespace cuda {
namespace {

constexpr int kFinishThreads = 256;

template <class T>
struct WeightArguments {
  using C = Compute<T>;

  PositiveTiles tiles;
  gfl_maps scores;
  int64_t batch;
  int classes;
  const int32_t* assigned_gt;
  C* weights;
  C* normalisers;
  C* num_pos;
  double* sums;  // of the weights of a tile
  int* counts;   // of its positives

  explicit WeightArguments(const gfl_positive_weights& op)
      : tiles(op.levels, op.batch),
        scores(op.scores),
        batch(op.batch),
        classes(static_cast<int>(op.classes)),
        assigned_gt(op.assigned_gt),
        weights(static_cast<C*>(op.weights)),
        normalisers(static_cast<C*>(op.normalisers)),
        num_pos(static_cast<C*>(op.num_pos)),
        sums(static_cast<double*>(op.workspace)),
        counts(reinterpret_cast<int*>(sums + tiles.count)) {}
};

constexpr int kLanes = 8;      // of a positive: a crowded tile keeps 16 of them in flight
constexpr int kTogether = 10;  // logits of a lane in flight: all, where there are 80 classes

// The highest logit of a cell; all its lanes have it. All threads of a warp must come, also those without a cell (NULL).
template <class T>
__device__ __forceinline__ Compute<T> highest(const T* cell, int64_t channel_stride, int classes) {
  using C = Compute<T>;
  C most = static_cast<C>(-HUGE_VAL);
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  for (int first = lane; first < classes && cell; first += kLanes * kTogether) {
    C logits[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const int c = first + k * kLanes;
      logits[k] = c < classes ? widen(cell[c * channel_stride]) : static_cast<C>(-HUGE_VAL);
    }
#pragma unroll
    for (int k = 0; k < kTogether; ++k) most = maximum(most, logits[k]);
  }
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    most = maximum(most, __shfl_xor_sync(kFullWarp, most, offset));
  }
  return most;
}

template <class T>
__global__ void __launch_bounds__(kPositiveThreads, kTileBlocks<T>)
    positive_weights_kernel(const WeightArguments<T> op) {
  using C = Compute<T>;
  constexpr int kAtOnce = kPositiveThreads / kLanes;
  PositiveList& list = static_shared<PositiveList>();
  const int group = static_cast<int>(threadIdx.x) / kLanes;
  const bool leads = threadIdx.x % kLanes == 0;
  for (int64_t number = blockIdx.x; number < op.tiles.count; number += gridDim.x) {
    const PositiveTiles::Place tile = op.tiles.place(number);
    C* weights = op.weights + tile.index;
    const int count = list_positives(op.assigned_gt, tile, list, [&](int cell) { weights[cell] = C(); });
    double sum = 0.0;
    for (int first = 0; first < count; first += kAtOnce) {
      const int cell = first + group < count ? list.cells[first + group] : -1;
      const T* scores = cell < 0 ? nullptr : cell_of<const T>(op.scores, tile, cell);
      const C most = highest(scores, op.scores.level[tile.level].channel_stride, op.classes);
      if (!leads || cell < 0) continue;
      const C weight = sigmoid_parts(most).p;
      weights[cell] = weight;
      sum += static_cast<double>(weight);
    }
    if (count > 0) sum = block_sum(sum);
    if (threadIdx.x == 0) {
      op.sums[number] = sum;
      op.counts[number] = count;
    }
  }
}

// One block: the tiles of each image, then all.
template <class T>
__global__ void __launch_bounds__(kFinishThreads) finish_weights(const WeightArguments<T> op) {
  using C = Compute<T>;
  const int thread = static_cast<int>(threadIdx.x);
  double weight = 0.0;
  for (int64_t i = thread; i < op.tiles.count; i += kFinishThreads) weight += op.sums[i];
  double positives = 0.0;
  double at_least_one_each = 0.0;
  for (int64_t image = thread / kWarp; image < op.batch; image += kFinishThreads / kWarp) {
    const int* counts = op.counts + image * op.tiles.of_image();
    int found = 0;
    for (int64_t i = thread % kWarp; i < op.tiles.of_image(); i += kWarp) found += counts[i];
    for (int offset = kWarp / 2; offset > 0; offset /= 2) found += __shfl_xor_sync(kFullWarp, found, offset);
    if (thread % kWarp != 0) continue;
    positives += static_cast<double>(found);
    at_least_one_each += static_cast<double>(found > 0 ? found : 1);
  }
  weight = block_sum(weight);
  positives = block_sum(positives);
  at_least_one_each = block_sum(at_least_one_each);
  if (thread != 0) return;
  op.normalisers[0] = static_cast<C>(at_least_one_each);
  op.normalisers[1] = static_cast<C>(weight);
  *op.num_pos = static_cast<C>(positives);
}

}  // namespace

int positive_weights_forward(const gfl_device& device, const gfl_positive_weights& op) {
  Stream stream(device);
  return with_float_type(op.scores.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const WeightArguments<T> arguments(op);
    if (arguments.tiles.count > 0) {
      stream.launch(positive_weights_kernel<T>, Grid{stream.blocks(arguments.tiles.count, 16), kPositiveThreads},
                    arguments);
    }
    stream.launch(finish_weights<T>, Grid{1, kFinishThreads}, arguments);
    return stream.status();
  });
}

int64_t maps_workspace_bytes(const gfl_levels& levels, int64_t batch, int64_t) {
  const int64_t of_tiles = GFL_POSITIVE_SUMS * PositiveTiles(levels, batch).count;
  const int64_t of_blocks = kMaxBlocks;
  return (of_tiles > of_blocks ? of_tiles : of_blocks) * static_cast<int64_t>(sizeof(double));
}

}  // namespace cuda
}  // namespace gfl
