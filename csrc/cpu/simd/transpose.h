// Transposes kBlock rows of values into columns, a row to each lane, and back: how distributions enter a BinsTile and
// leave it.
#pragma once

#include <utility>

#include "../parallel.h"
#include "vec.h"

namespace gfl {

#if defined(__GNUC__) && !defined(__clang__)
// One step of a butterfly: swaps the off-diagonal blocks of size `step` between lines i and i + step.
template <int step>
GFL_FN void butterfly(VecF* lines) {
  constexpr int width = Lanes<float>::width;
  VecI low, high;
  for (int j = 0; j < width; ++j) {
    low[j] = (j & step) ? width + j - step : j;
    high[j] = (j & step) ? width + j : j + step;
  }
  for (int i = 0; i < width; ++i) {
    if (i & step) continue;
    const VecF a = lines[i];
    const VecF b = lines[i + step];
    lines[i] = __builtin_shuffle(a, b, low);
    lines[i + step] = __builtin_shuffle(a, b, high);
  }
}

// A square of width x width floats, in registers.
GFL_FN void transpose_square(const float* in, int64_t in_stride, float* out, int64_t out_stride) {
  constexpr int width = Lanes<float>::width;
  VecF lines[width];
  for (int i = 0; i < width; ++i) lines[i] = load(in + i * in_stride);
  butterfly<1>(lines);
  butterfly<2>(lines);
  if (width > 4) butterfly<(width > 4 ? 4 : 1)>(lines);
  if (width > 8) butterfly<(width > 8 ? 8 : 1)>(lines);
  for (int i = 0; i < width; ++i) store(out + i * out_stride, lines[i]);
}
constexpr bool kTransposesInRegisters = true;
#else
GFL_FN void transpose_square(const float*, int64_t, float*, int64_t) {}
constexpr bool kTransposesInRegisters = false;
#endif

#if defined(__AVX512F__)
// Sixteen rows of seventeen floats, one behind the other, are seventeen vectors: value k of row i is in lane i + k mod 16
// of vector i + (i + k) / 16. So lane l has its value k in vector l - k mod 17, in whichever row it is: picked from there
// lane by lane, column k has only to be rotated by k lanes. And as the same pick leads back, rows are made the same way.
constexpr int kSkewed = 17;

// One bit of the lane numbers: where it is set, a line takes what is `step` lines further on.
template <int step>
GFL_FN void pick_step(VecF (&lines)[kSkewed]) {
  constexpr __mmask16 lanes = step == 1 ? 0xaaaa : step == 2 ? 0xcccc : step == 4 ? 0xf0f0 : 0xff00;
  VecF first[step];
  for (int i = 0; i < step; ++i) first[i] = lines[i];
  for (int i = 0; i < kSkewed; ++i) {
    const VecF further = i + step < kSkewed ? lines[i + step] : first[i + step - kSkewed];
    lines[i] = (VecF)_mm512_mask_blend_ps(lanes, (__m512)lines[i], (__m512)further);
  }
}

// Lane l of line m becomes lane l of line l + m: what belongs to k is then line -k.
GFL_FN void pick(VecF (&lines)[kSkewed]) {
  pick_step<1>(lines);
  pick_step<2>(lines);
  pick_step<4>(lines);
  pick_step<8>(lines);
}

template <int by>
GFL_FN VecF rotated(VecF x) {
  return (VecF)_mm512_alignr_epi32((__m512i)x, (__m512i)x, by & 15);
}

// The vectors are named one by one: of a loop that loads them GCC makes a copy through memory.
template <int... k>
GFL_FN void skewed_rows_to_tile(const float* rows, float* tile, std::integer_sequence<int, k...>) {
  VecF lines[kSkewed] = {load(rows + k * kBlock)...};
  pick(lines);
  (store(tile + k * kBlock, rotated<k>(lines[(kSkewed - k) % kSkewed])), ...);
}
template <int... k>
GFL_FN void tile_to_skewed_rows(const float* tile, float* rows, std::integer_sequence<int, k...>) {
  VecF lines[kSkewed] = {rotated<-k>(load(tile + k * kBlock))...};
  pick(lines);
  (store(rows + k * kBlock, lines[(kSkewed - k) % kSkewed]), ...);
}
GFL_FN bool is_skewed(int64_t stride, int bins) { return bins == kSkewed && stride == kSkewed; }
GFL_FN void skewed_rows_to_tile(const float* rows, float* tile) {
  skewed_rows_to_tile(rows, tile, std::make_integer_sequence<int, kSkewed>());
}
GFL_FN void tile_to_skewed_rows(const float* tile, float* rows) {
  tile_to_skewed_rows(tile, rows, std::make_integer_sequence<int, kSkewed>());
}
#else
GFL_FN bool is_skewed(int64_t, int) { return false; }
GFL_FN void skewed_rows_to_tile(const float*, float*) {}
GFL_FN void tile_to_skewed_rows(const float*, float*) {}
#endif

// Columns [first, bins) of kBlock rows, one value at a time.
GFL_FN void columns_to_tile(const double* rows, int64_t stride, int first, int bins, double* tile) {
  for (int k = first; k < bins; ++k) {
    for (int i = 0; i < kBlock; ++i) tile[k * kBlock + i] = rows[i * stride + k];
  }
}
// Lane by lane into a register: a vector load soon after sixteen small stores would wait for all of them.
GFL_FN void columns_to_tile(const float* rows, int64_t stride, int first, int bins, float* tile) {
  for (int k = first; k < bins; ++k) {
    for (int i = 0; i < kBlock; i += Lanes<float>::width) {
      store(tile + k * kBlock + i, load_strided_lanes(rows + i * stride + k, stride));
    }
  }
}
template <class T>
GFL_FN void columns_to_rows(const T* tile, int first, int bins, T* rows, int64_t stride) {
  for (int k = first; k < bins; ++k) {
    for (int i = 0; i < kBlock; ++i) rows[i * stride + k] = tile[k * kBlock + i];
  }
}

GFL_FN void rows_to_tile(const double* rows, int64_t stride, int bins, double* tile) {
  columns_to_tile(rows, stride, 0, bins, tile);
}
GFL_FN void tile_to_rows(const double* tile, int bins, double* rows, int64_t stride) {
  columns_to_rows(tile, 0, bins, rows, stride);
}

// Where more than a few columns are left over, one more square overlaps the last: writing a value twice is harmless.
GFL_FN void rows_to_tile(const float* rows, int64_t stride, int bins, float* tile) {
  if (is_skewed(stride, bins)) return skewed_rows_to_tile(rows, tile);
  constexpr int width = Lanes<float>::width;
  int k = 0;
  if (kTransposesInRegisters && bins >= width) {
    while (k + width <= bins || bins - k > width / 4) {
      if (k + width > bins) k = bins - width;
      for (int i = 0; i < kBlock; i += width) {
        transpose_square(rows + i * stride + k, stride, tile + k * kBlock + i, kBlock);
      }
      k += width;
    }
  }
  columns_to_tile(rows, stride, k, bins, tile);
}
GFL_FN void tile_to_rows(const float* tile, int bins, float* rows, int64_t stride) {
  if (is_skewed(stride, bins)) return tile_to_skewed_rows(tile, rows);
  constexpr int width = Lanes<float>::width;
  int k = 0;
  if (kTransposesInRegisters && bins >= width) {
    while (k + width <= bins || bins - k > width / 4) {
      if (k + width > bins) k = bins - width;
      for (int i = 0; i < kBlock; i += width) {
        transpose_square(tile + k * kBlock + i, kBlock, rows + i * stride + k, stride);
      }
      k += width;
    }
  }
  columns_to_rows(tile, k, bins, rows, stride);
}

}  // namespace gfl
