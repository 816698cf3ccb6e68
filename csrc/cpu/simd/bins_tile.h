// Sixteen distributions at a time, transposed so that a vector holds the same bin of many of them: bin k of distribution i
// stands at data[k * kBlock + i]. Logits come as rows (a distribution's bins side by side), as maps (a bin's positions
// side by side), or strided both ways; they leave the same way.
#pragma once

#include "transpose.h"

namespace gfl {

constexpr int kMostBins = 256;
constexpr int kMostColumns = kMostBins + 1;  // the statistics of all bins have their mean besides

template <class T>
struct BinsTile {
  alignas(64) T data[kMostColumns * kBlock];
};

// Bin k of the vector-wide group of distributions that starts at `base`.
template <class T>
struct TileColumn {
  T* base;
  GFL_MEMBER Vector<T>& operator()(int k) const { return *reinterpret_cast<Vector<T>*>(base + k * kBlock); }
};

// Where a position's sides lie side by side, each side's tile asks for its share of them all.
template <int write>
GFL_FN void prefetch_tile(const gfl_bins& m, int64_t origin, int64_t side, int bins, int value_bytes) {
  const int64_t together = m.length_stride / bins;
  if (m.length_stride % bins != 0 || side >= together) return;
  const int64_t share = kBlock * bins * value_bytes;
  prefetch_ahead<write>(static_cast<const char*>(m.data) + (origin - side * bins) * value_bytes + side * share, share);
}

// Whatever is not a whole block of rows in the compute type. Not inlined: the usual way is short, and is to stay so.
template <class T>
GFL_NOINLINE void load_any_bins(const gfl_bins& m, int64_t origin, int count, int bins, T* tile) {
  if (m.channel_stride != 1) {
    for (int k = 0; k < bins; ++k) {
      load_run(m.data, m.dtype, origin + k * m.channel_stride, m.length_stride, count, tile + k * kBlock);
      for (int i = count; i < kBlock; ++i) tile[k * kBlock + i] = T();
    }
    return;
  }
  T rows[kMostColumns * kBlock];
  for (int i = 0; i < count; ++i) load_run(m.data, m.dtype, origin + i * m.length_stride, 1, bins, rows + i * bins);
  for (int i = count * bins; i < kBlock * bins; ++i) rows[i] = T();
  rows_to_tile(rows, bins, bins, tile);
}

template <class T>
GFL_NOINLINE void store_any_bins(const T* tile, const gfl_bins& m, int64_t origin, int count, int bins) {
  if (m.channel_stride != 1) {
    for (int k = 0; k < bins; ++k) {
      store_run(tile + k * kBlock, count, m.data, m.dtype, origin + k * m.channel_stride, m.length_stride);
    }
    return;
  }
  T rows[kMostColumns * kBlock];
  tile_to_rows(tile, bins, rows, bins);
  for (int i = 0; i < count; ++i) store_run(rows + i * bins, bins, m.data, m.dtype, origin + i * m.length_stride, 1);
}

template <class T>
GFL_FN bool whole_block_of_rows(const gfl_bins& m, int count) {
  return m.channel_stride == 1 && m.dtype == DtypeOf<T>::code && count == kBlock;
}

// `count` (up to kBlock) distributions of one batch and side, from position `start`; the rest of the tile is zeros.
template <class T>
GFL_FN void load_bins(const gfl_bins& m, int64_t batch, int64_t side, int64_t start, int count, int bins, T* tile) {
  const int64_t origin = batch * m.batch_stride + side * bins * m.channel_stride + start * m.length_stride;
  if (!whole_block_of_rows<T>(m, count)) return load_any_bins(m, origin, count, bins, tile);
  prefetch_tile<0>(m, origin, side, bins, sizeof(T));
  rows_to_tile(static_cast<const T*>(m.data) + origin, m.length_stride, bins, tile);
}

template <class T>
GFL_FN void store_bins(const T* tile, const gfl_bins& m, int64_t batch, int64_t side, int64_t start, int count,
                       int bins) {
  const int64_t origin = batch * m.batch_stride + side * bins * m.channel_stride + start * m.length_stride;
  if (!whole_block_of_rows<T>(m, count)) return store_any_bins(tile, m, origin, count, bins);
  prefetch_tile<1>(m, origin, side, bins, sizeof(T));
  tile_to_rows(tile, bins, static_cast<T*>(m.data) + origin, m.length_stride);
}

// A block of a vector of the compute type from data[start]; where it is absent, and past `count`, it reads `otherwise`.
template <class T>
GFL_FN void load_block(const void* data, int64_t start, int64_t stride, int count, T otherwise, T* out) {
  const T* in = static_cast<const T*>(data) + start;
  if (!data || (count == kBlock && stride == 1)) {
    for (int i = 0; i < kBlock; i += Lanes<T>::width) store(out + i, data ? load(in + i) : Vector<T>() + otherwise);
    return;
  }
  for (int i = 0; i < kBlock; ++i) out[i] = i < count ? in[i * stride] : otherwise;
}

// Calls body(number) with the number of bins as a constant where it is a usual one, so that the compiler unrolls the loops
// over bins, and with 0 where it is not.
template <int number>
struct ConstantBins {
  static constexpr int value = number;
};
template <class T, class Body>
GFL_FN void with_constant_bins(int64_t bins, const Body& body) {
  if constexpr (Lanes<T>::width > 1) {
    if (bins == 17) return body(ConstantBins<17>());
    if (bins == 16) return body(ConstantBins<16>());
  }
  body(ConstantBins<0>());
}

// Bin values: given, or first, first + 1, ...
template <class T>
struct BinValues {
  T values[kMostBins];

  BinValues(const void* given, double first, int64_t bins) {
    for (int64_t k = 0; k < bins; ++k) {
      values[k] = given ? static_cast<const T*>(given)[k] : static_cast<T>(first + static_cast<double>(k));
    }
  }
  GFL_MEMBER T operator()(int k) const { return values[k]; }
};

}  // namespace gfl
