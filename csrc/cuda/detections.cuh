// From the candidates of all levels to boxes in order, and from those that stay to the outputs. A thread has one edge
// distribution of a candidate in its row of shared memory; four neighbours have a box.
#pragma once

#include "../math/softmax.h"
#include "bins_tile.cuh"
#include "candidates.cuh"
#include "nms.cuh"
#include "sides.cuh"

namespace gfl {
namespace cuda {

template <class T>
struct Detected {
  gfl_bins edges[GFL_MAX_LEVELS];
  T level_strides[GFL_MAX_LEVELS];
  int32_t widths[GFL_MAX_LEVELS];
  int bins;
  const T* image_shapes;
  const T* scale_factors;
  T min_size;
  // (batch, candidates), by descending score
  T* boxes;  // four each
  int64_t* labels;
  OrderKey<T>* keys;
  int64_t* totals;    // (batch,) how many there are
  uint64_t* removed;  // (batch, words) those that are too small, given as 0
  // what stays of them, and where it goes
  int64_t room;
  const int64_t* keep;
  const int64_t* counts;
  T* out_boxes;
  T* out_scores;
  int64_t* out_labels;
  T* out_distributions;
  T* out_deviations;
  T* out_strides;

  explicit Detected(const gfl_postprocess& op)
      : bins(static_cast<int>(op.bins)),
        image_shapes(static_cast<const T*>(op.image_shapes)),
        scale_factors(static_cast<const T*>(op.scale_factors)),
        min_size(static_cast<T>(op.min_size)),
        room(op.room),
        counts(op.counts),
        out_boxes(static_cast<T*>(op.boxes)),
        out_scores(static_cast<T*>(op.scores)),
        out_labels(op.labels),
        out_distributions(static_cast<T*>(op.distributions)),
        out_deviations(static_cast<T*>(op.deviations)),
        out_strides(static_cast<T*>(op.strides)) {
    for (int i = 0; i < op.num_levels; ++i) {
      edges[i] = op.levels[i].edges;
      level_strides[i] = static_cast<T>(op.levels[i].stride);
      widths[i] = op.levels[i].width;
    }
  }

  __device__ __forceinline__ ImageFrame<T> frame(int64_t image) const {
    const T* shape = image_shapes + 2 * image;
    if (!scale_factors) return {shape[0], shape[1], static_cast<T>(1), static_cast<T>(1)};
    const T* scale = scale_factors + 2 * image;
    return {shape[0], shape[1], scale[0], scale[1]};
  }
};

// Where a candidate comes from.
struct Cell {
  int level;
  int64_t cell;
  int64_t label;
};
template <class T>
__device__ __forceinline__ Cell cell_of(const Candidates<T>& from, int level, const OrderKey<T>& key) {
  const int64_t place = index_of(key) - from.levels[level].first_index;
  const int64_t classes = from.levels[level].classes;
  const int64_t cell = place / classes;
  return {level, cell, place - cell * classes};
}
template <class T>
__device__ __forceinline__ int level_of_index(const Candidates<T>& from, int64_t index) {
  int level = 0;
  while (level + 1 < from.num_levels && index >= from.levels[level + 1].first_index) ++level;
  return level;
}

constexpr int kEdgeLoads = 9;  // in flight: half of 17 bins, which lie a plane apart

template <class T, class S>
__device__ __forceinline__ void load_edge_of(const S* logits, int64_t step, int bins, const TileRow<T>& row) {
  for (int first = 0; first < bins; first += kEdgeLoads) {
    S loaded[kEdgeLoads];
#pragma unroll
    for (int k = 0; k < kEdgeLoads; ++k) loaded[k] = first + k < bins ? logits[(first + k) * step] : S();
#pragma unroll
    for (int k = 0; k < kEdgeLoads; ++k) {
      if (first + k < bins) row(first + k) = static_cast<T>(widen(loaded[k]));
    }
  }
}

// The logits of one side of a cell, into a row.
template <class T>
__device__ __forceinline__ void load_edge(const gfl_bins& edges, int64_t image, int64_t cell, int side, int bins,
                                          const TileRow<T>& row) {
  const int64_t step = edges.channel_stride;
  const int64_t first = image * edges.batch_stride + cell * edges.length_stride + side * bins * step;
  if (edges.dtype == GFL_FLOAT32) {
    load_edge_of<T>(static_cast<const float*>(edges.data) + first, step, bins, row);
  } else if (edges.dtype == GFL_BFLOAT16) {
    load_edge_of<T>(static_cast<const bfloat16*>(edges.data) + first, step, bins, row);
  } else if (edges.dtype == GFL_FLOAT16) {
    load_edge_of<T>(static_cast<const float16*>(edges.data) + first, step, bins, row);
  } else {
    load_edge_of<T>(static_cast<const double*>(edges.data) + first, step, bins, row);
  }
}

// How many candidates of a level come before a key of another.
template <class T>
__device__ __forceinline__ int64_t before_in(const Candidates<T>& from, int64_t image, int level,
                                             const OrderKey<T>& key) {
  const OrderKey<T>* sorted = from.sorted + image * from.most + from.levels[level].first_candidate;
  int64_t low = 0;
  int64_t high = from.count(image, level);
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sorted[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Decodes every candidate, finds its place among those of all levels, and puts it there.
template <class T>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>)
    decode_kernel(const Candidates<T> from, const Detected<T> op, const BinsRows rows) {
  const int thread = static_cast<int>(threadIdx.x);
  const int side = thread % kSides;
  const int64_t in_tile = rows.tile_rows / kSides;
  const TileRow<T> row{dynamic_shared<T>() + thread * rows.pitch};
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kTileThreads) + thread; i < from.batch;
       i += static_cast<int64_t>(gridDim.x) * kTileThreads) {
    int64_t total = 0;
    for (int level = 0; level < from.num_levels; ++level) total += from.count(i, level);
    op.totals[i] = total;
  }
  for (int64_t first = blockIdx.x * in_tile; first < from.batch * from.most; first += gridDim.x * in_tile) {
    const int64_t i = first + thread / kSides;
    const bool there = thread < rows.tile_rows && i < from.batch * from.most;
    const int64_t image = there ? i / from.most : 0;
    const int level = there ? from.level_of_candidate(i - image * from.most) : 0;
    const int64_t own = there ? i - image * from.most - from.levels[level].first_candidate : 0;
    const bool active = there && own < from.count(image, level);
    OrderKey<T> key = {};
    Cell cell = {};
    T expectation = T();
    int64_t before = 0;
    if (active) {
      key = from.sorted[i];
      cell = cell_of(from, level, key);
      load_edge(op.edges[level], image, cell.cell, side, op.bins, row);
      expectation = softmax_in_place<T>(row, op.bins, CountingValues<T>{}).expectation;
      for (int other = side; other < from.num_levels; other += kSides) {
        before += other == level ? own : before_in(from, image, other, key);
      }
    }
    T expectations[kSides];
    int64_t parts[kSides];
    gather_sides(expectation, expectations);
    gather_sides(before, parts);
    if (!active) continue;
    const int64_t place = parts[0] + parts[1] + parts[2] + parts[3];
    const int64_t y = cell.cell / op.widths[level];
    const Box<T> box = detected_box(static_cast<T>(cell.cell - y * op.widths[level]), static_cast<T>(y),
                                    op.level_strides[level], expectations, op.frame(image));
    const int64_t at = image * from.most + place;
    op.boxes[4 * at + side] = of_side(side, box.x1, box.y1, box.x2, box.y2);
    if (side != 0) continue;
    op.labels[at] = cell.label;
    op.keys[at] = key;
    if (exceeds(box, op.min_size)) continue;
    uint32_t* removed = reinterpret_cast<uint32_t*>(op.removed + image * words_for(from.most));
    atomicOr(removed + place / kWarp, 1u << (place % kWarp));
  }
}

// The detections, and the padding behind them.
template <class T>
__global__ void __launch_bounds__(kFindThreads) write_kernel(const Candidates<T> from, const Detected<T> op) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kFindThreads) + threadIdx.x; i < from.batch * op.room;
       i += static_cast<int64_t>(gridDim.x) * kFindThreads) {
    const int64_t image = i / op.room;
    const bool there = i - image * op.room < op.counts[image];
    const int64_t at = there ? image * from.most + op.keep[i] : 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) op.out_boxes[4 * i + j] = there ? op.boxes[4 * at + j] : T();
    op.out_scores[i] = there ? score_of(op.keys[at]) : T();
    op.out_labels[i] = there ? op.labels[at] : -1;
    if (!op.out_strides) continue;
    op.out_strides[i] = there ? op.level_strides[level_of_index(from, index_of(op.keys[at]))] : T();
  }
}

// Their distributions.
template <class T>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>)
    edges_kernel(const Candidates<T> from, const Detected<T> op, const BinsRows rows, const BinsView<T> distributions) {
  const int thread = static_cast<int>(threadIdx.x);
  BinsTile<T> tile{dynamic_shared<T>(), rows, 0, 0};
  const int64_t step = static_cast<int64_t>(gridDim.x) * rows.tile_rows;
  for (tile.first = static_cast<int64_t>(blockIdx.x) * rows.tile_rows; tile.first < rows.rows; tile.first += step) {
    const int64_t left = rows.rows - tile.first;
    tile.count = left < rows.tile_rows ? static_cast<int>(left) : rows.tile_rows;
    const TileRow<T> row = tile.row(thread);
    if (thread < tile.count) {
      const int64_t detection = (tile.first + thread) / kSides;
      const int64_t image = detection / op.room;
      T deviation = T();
      if (detection - image * op.room < op.counts[image]) {
        const OrderKey<T> key = op.keys[image * from.most + op.keep[detection]];
        const Cell cell = cell_of(from, level_of_index(from, index_of(key)), key);
        load_edge(op.edges[cell.level], image, cell.cell, thread % kSides, op.bins, row);
        const Softmax<T> softmax = softmax_in_place<T>(row, op.bins, CountingValues<T>{});
        deviation = standard_deviation(row, op.bins, softmax, CountingValues<T>{});
      } else {
        for (int k = 0; k < op.bins; ++k) row(k) = T();
      }
      op.out_deviations[tile.first + thread] = deviation;
    }
    __syncthreads();
    tile.store(distributions);
    __syncthreads();
  }
}

}  // namespace cuda
}  // namespace gfl
