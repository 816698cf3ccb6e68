// Distributions in shared memory, a row for each thread.
//
// A block stages a tile of rows, each thread works on its own row in place (math/softmax.h, math/distribution_focal_loss.h), and the tile
// goes back the same way. Where bins lie side by side in memory the block copies together, so that accesses are
// coalesced and 16 bytes wide if they can be; where positions lie side by side, neighbouring threads own neighbouring
// positions and each copies its own row. The pitch is odd, so that 32 threads at the same bin meet 32 banks.
#pragma once

#include "index.cuh"
#include "launch.h"
#include "vector.cuh"

namespace gfl {
namespace cuda {

constexpr int kTileThreads = 128;
// Of the 48 KB of shared memory that a block has without asking. 1 KB may be CUDA's own, and sums take 256 bytes.
constexpr int kTileBytes = 46 * 1024;

// Blocks that a multiprocessor must have room for: bounds the registers at 80, in double at 168.
template <class T>
constexpr int kTileBlocks = std::is_same<T, double>::value ? 3 : 6;

enum class Copy { kVectors, kTogether, kOwnRow };

// Bin values: given, or first, first + 1, ...
template <class C>
struct BinValues {
  const C* given;
  C first;

  __device__ __forceinline__ C operator()(int k) const { return given ? given[k] : first + static_cast<C>(k); }
};

template <class C>
struct TileRow {
  C* bins;
  __device__ __forceinline__ C& operator()(int k) const { return bins[k]; }
};

// The distributions of a (batch, sides, bins, length) view, numbered so that neighbours in memory are neighbours.
struct BinsRows {
  int64_t rows;
  int64_t sides;
  int64_t length;
  int bins;
  int pitch;
  int tile_rows;
  int tile_bytes;
  bool sides_innermost;
  Divider by_sides;
  Divider by_length;
  Divider by_bins;

  // `beside` bytes of a row's own lie behind the tile.
  BinsRows(int64_t batch, int64_t sides_, int64_t bins_, int64_t length_, bool sides_innermost_, int value_bytes,
           int beside = 0)
      : rows(batch * sides_ * length_),
        sides(sides_),
        length(length_),
        bins(static_cast<int>(bins_)),
        pitch(bins | 1),
        tile_rows(kTileBytes / (pitch * value_bytes + beside)),
        tile_bytes(0),
        sides_innermost(sides_innermost_),
        by_sides(sides_),
        by_length(length_),
        by_bins(bins_) {
    tile_rows = tile_rows < kTileThreads ? tile_rows / 8 * 8 : kTileThreads;  // whole vectors and whole boxes
    tile_bytes = tile_rows * (pitch * value_bytes + beside);
  }

  int64_t tiles() const { return (rows + tile_rows - 1) / tile_rows; }

  struct Place {
    int64_t batch;
    int64_t side;
    int64_t position;
  };
  __device__ __forceinline__ Place place(int64_t row) const {
    if (sides_innermost) {
      const int64_t q = by_sides.divide_long(row);
      const int64_t batch = by_length.divide_long(q);
      return {batch, row - q * sides, q - batch * length};
    }
    const int64_t q = by_length.divide_long(row);
    const int64_t batch = by_sides.divide_long(q);
    return {batch, q - batch * sides, row - q * length};
  }
};

// Where the logits of those rows lie, or their gradient goes.
template <class T>
struct BinsView {
  T* data;
  int64_t batch_stride;
  int64_t channel_stride;
  int64_t length_stride;
  Copy copy;

  BinsView(const gfl_bins& view, const BinsRows& rows, int64_t batch)
      : data(static_cast<T*>(view.data)),
        batch_stride(view.batch_stride),
        channel_stride(view.channel_stride),
        length_stride(view.length_stride),
        copy(Copy::kOwnRow) {
    if (channel_stride != 1 || !rows.sides_innermost) return;
    const int64_t cols = rows.sides * rows.bins;
    const bool dense = (rows.length == 1 || length_stride == cols) &&
                       (batch == 1 || batch_stride == rows.length * cols) && aligned(data, 16);
    copy = dense ? Copy::kVectors : Copy::kTogether;
  }

  __device__ __forceinline__ int64_t offset(const BinsRows& rows, int64_t row) const {
    const BinsRows::Place at = rows.place(row);
    return at.batch * batch_stride + at.side * rows.bins * channel_stride + at.position * length_stride;
  }
};

// `count` rows from row `first` on, in shared memory.
template <class T>
struct BinsTile {
  using C = Compute<T>;
  static constexpr int N = kPack<T>;
  static constexpr int kInFlight = 5;  // covers a whole tile of 17 float bins at once

  C* values;
  const BinsRows& rows;
  int64_t first;
  int count;

  __device__ __forceinline__ TileRow<C> row(int thread) const { return {values + thread * rows.pitch}; }

  __device__ __forceinline__ void load(const BinsView<T>& view) const {
    const int thread = static_cast<int>(threadIdx.x);
    if (view.copy == Copy::kOwnRow) {
      if (thread >= count) return;
      const T* from = view.data + view.offset(rows, first + thread);
#pragma unroll 4
      for (int k = 0; k < rows.bins; ++k) values[thread * rows.pitch + k] = widen(from[k * view.channel_stride]);
      return;
    }
    const int size = count * rows.bins;
    int rest = 0;
    if (view.copy == Copy::kVectors) {
      rest = size / N * N;
      load_vectors(view.data + first * rows.bins, rest);
    }
    for (int i = rest + thread; i < size; i += kTileThreads) {
      const int row = rows.by_bins.divide(i);
      const int bin = i - row * rows.bins;
      values[row * rows.pitch + bin] = widen(view.data[view.offset(rows, first + row) + bin]);
    }
  }

  __device__ __forceinline__ void store(const BinsView<T>& view) const {
    const int thread = static_cast<int>(threadIdx.x);
    if (view.copy == Copy::kOwnRow) {
      if (thread >= count) return;
      T* to = view.data + view.offset(rows, first + thread);
#pragma unroll 4
      for (int k = 0; k < rows.bins; ++k) to[k * view.channel_stride] = narrow<T>(values[thread * rows.pitch + k]);
      return;
    }
    const int size = count * rows.bins;
    int rest = 0;
    if (view.copy == Copy::kVectors) {
      rest = size / N * N;
      store_vectors(view.data + first * rows.bins, rest);
    }
    for (int i = rest + thread; i < size; i += kTileThreads) {
      const int row = rows.by_bins.divide(i);
      const int bin = i - row * rows.bins;
      view.data[view.offset(rows, first + row) + bin] = narrow<T>(values[row * rows.pitch + bin]);
    }
  }

 private:
  // Where a dense element stands in the tile: at its own index, but for the padding of the rows before it.
  template <class Use>
  __device__ __forceinline__ void for_each_of_vector(int start, const Use& use) const {
    int row = rows.by_bins.divide(start);
    int bin = start - row * rows.bins;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      use(i, start + i + row);
      if (++bin < rows.bins) continue;
      bin = 0;
      ++row;
    }
  }

  __device__ __forceinline__ void load_vectors(const T* from, int size) const {
    constexpr int kStep = kTileThreads * N;
    for (int start = static_cast<int>(threadIdx.x) * N; start < size; start += kStep * kInFlight) {
      Vector<T, N> loaded[kInFlight];
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        if (start + j * kStep < size) loaded[j] = Vector<T, N>::load(from + start + j * kStep);
      }
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        const int at = start + j * kStep;
        if (at >= size) continue;
        C wide[N];
        loaded[j].widen_to(wide);
        if (rows.pitch == rows.bins) {
          Vector<C, N>::narrowed(wide).store(values + at);
        } else {
          for_each_of_vector(at, [&](int i, int place) { values[place] = wide[i]; });
        }
      }
    }
  }

  __device__ __forceinline__ void store_vectors(T* to, int size) const {
    for (int at = static_cast<int>(threadIdx.x) * N; at < size; at += kTileThreads * N) {
      C wide[N];
      if (rows.pitch == rows.bins) {
        Vector<C, N>::load(values + at).widen_to(wide);
      } else {
        for_each_of_vector(at, [&](int i, int place) { wide[i] = values[place]; });
      }
      Vector<T, N>::narrowed(wide).store_unsplit(to + at);
    }
  }
};

}  // namespace cuda
}  // namespace gfl
