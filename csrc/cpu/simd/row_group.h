// Sixty-four rows of floats at a time, each a distribution, worked on as they lie: what a row needs of all its bins is
// their sum, and sums of rows are made by adding halves of vectors, in a third of the steps that transposing them takes.
//
// No maximum is taken first. A sum far from overflow and underflow says that the largest logit of its row was no larger
// than 30 and no smaller than -24, where e^x is as exact as e^(x - max); for any other the group is refused, and
// BinsTile does it.
#pragma once

#include <utility>

#include "bins_tile.h"
#include "formulas.h"

namespace gfl {

constexpr int kGroupRows = 64;

#if defined(__GNUC__) && !defined(__clang__)
constexpr bool kSumsRows = true;

// The sum of two lines whose lanes are halves, quarters, ... of the sums of rows; `together` lanes are taken at a time.
template <int together>
GFL_FN VecF add_halves(VecF a, VecF b) {
  constexpr int width = Lanes<float>::width;
  VecI even, odd;
  for (int j = 0; j < width; ++j) {
    if (together == 1) {  // within four lanes, which is where shuffles are cheap: a0 b0 a1 b1 and a2 b2 a3 b3
      even[j] = j / 4 * 4 + j % 4 / 2 + j % 2 * width;
      odd[j] = even[j] + 2;
    } else if (together == 2) {  // a0 a1 b0 b1 and a2 a3 b2 b3
      even[j] = j / 4 * 4 + j % 2 + j % 4 / 2 * width;
      odd[j] = even[j] + 2;
    } else {  // the even fours of a, then those of b; the odd ones
      even[j] = j % (width / 2) / 4 * 8 + j % 4 + j / (width / 2) * width;
      odd[j] = even[j] + 4;
    }
  }
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
}

// Value first, first + 2, ... of as many pairs as there are lanes.
template <int first>
GFL_FN VecF every_other(const float* pairs) {
  constexpr int width = Lanes<float>::width;
  return __builtin_shuffle(load(pairs), load(pairs + width), 2 * lane_numbers() + first);
}

// The sum of line i in lane i, of as many lines as there are lanes.
template <class Line>
GFL_FN VecF sums_of_lines(const Line& line) {
  constexpr int width = Lanes<float>::width;
  VecF halves[width / 2];
  for (int i = 0; i < width / 2; ++i) halves[i] = add_halves<1>(line(2 * i), line(2 * i + 1));
  for (int i = 0; i < width / 4; ++i) halves[i] = add_halves<2>(halves[2 * i], halves[2 * i + 1]);
  for (int n = width / 8; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) halves[i] = add_halves<4>(halves[2 * i], halves[2 * i + 1]);
  }
  return halves[0];
}
#else
constexpr bool kSumsRows = false;
template <int first>
GFL_FN VecF every_other(const float* pairs) {
  return load(pairs);
}
template <class Line>
GFL_FN VecF sums_of_lines(const Line& line) {
  return line(0);
}
#endif

#if defined(__AVX512F__)
// Stores sixteen rows of seventeen, one behind the other, as seventeen vectors: those are lines of memory, and a line that
// is written whole need not be read first. Vector v has the end of row v - 1 and the beginning of row v; `last` has the
// rows' last bins, and space for a vector from each on.
template <int by>
GFL_FN VecF lanes_from(VecF low, VecF high) {
  return (VecF)_mm512_alignr_epi32((__m512i)high, (__m512i)low, by);
}
template <int... v>
GFL_FN void store_lines(const VecF (&rows)[16], const float* last, float* out, std::integer_sequence<int, v...>) {
  store(out, rows[0]);
  (store(out + 16 * (v + 1), lanes_from<15 - v>(lanes_from<1>(rows[v], load(last + v)), rows[v + 1])), ...);
  store(out + 16 * 16, lanes_from<1>(rows[15], load(last + 15)));
}
GFL_FN void store_lines(const VecF (&rows)[16], const float* last, float* out) {
  store_lines(rows, last, out, std::make_integer_sequence<int, 15>());
}
// Multiplies such rows in place, each by its factor.
template <int... v>
GFL_FN void multiply_lines(float* rows, VecF factors, std::integer_sequence<int, v...>) {
  const VecI lane = lane_numbers();
  (store(rows + 16 * v, load(rows + 16 * v) * (VecF)_mm512_permutexvar_ps((__m512i)(v + (lane < v)), (__m512)factors)),
   ...);
}
GFL_FN void multiply_lines(float* rows, VecF factors) {
  multiply_lines(rows, factors, std::make_integer_sequence<int, 17>());
}
constexpr bool kStoresLines = true;
#else
template <int lanes>
GFL_FN void store_lines(const VecF (&)[lanes], const float*, float*) {}
GFL_FN void multiply_lines(float*, VecF) {}
constexpr bool kStoresLines = false;
#endif

// A row is whole vectors of bins and at most one bin more, which stands in a vector with those of other rows.
template <int bins>
struct RowGroup {
  static constexpr int kWidth = Lanes<float>::width;
  static constexpr int kVectors = bins / kWidth;
  static constexpr bool kOneMore = bins % kWidth == 1;
  static constexpr bool kPossible = kSumsRows && kVectors > 0 && bins % kWidth <= 1;
  static constexpr int kLast = bins - 1;

  alignas(64) float whole[kGroupRows * (kVectors > 0 ? kVectors : 1) * kWidth];  // e^x
  alignas(64) float last[kGroupRows];                                            // e^x of the bin that is left
  alignas(64) float sum[kGroupRows];
  alignas(64) float total[kGroupRows];  // of e^x times the bins' values

  // False where a sum is out of bounds, or NaN.
  template <bool with_total>
  GFL_MEMBER bool exponentials(const float* rows, int64_t stride, const float* values) {
    VecI outside = VecI();
    for (int first = 0; first < kGroupRows; first += kWidth) {
      float left_over[kWidth];
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; ++i) {
        const float* row = rows + (first + i) * stride;
        if (kOneMore) left_over[i] = row[kLast];
        for (int j = 0; j < kVectors; ++j) {
          store(whole + ((first + i) * kVectors + j) * kWidth, unbounded_exponential(load(row + j * kWidth)));
        }
      }
      VecF all = sums_of_lines([&](int i) { return sum_of_row(first + i, [](int, VecF e) { return e; }); });
      VecF weighted = VecF();
      if (with_total) {
        weighted = sums_of_lines(
            [&](int i) { return sum_of_row(first + i, [&](int k, VecF e) { return e * load(values + k); }); });
      }
      if (kOneMore) {
        const VecF e = unbounded_exponential(load(left_over));
        store(last + first, e);
        all = all + e;
        if (with_total) weighted = weighted + e * values[kLast];
      }
      store(sum + first, all);
      if (with_total) store(total + first, weighted);
      outside |= ~((all > 1e-9f) & (all < 1e13f));
    }
    return !any_lane(outside);
  }

  // change(first bin, e^x) for each vector of row i, added up.
  template <class Change>
  GFL_MEMBER VecF sum_of_row(int i, const Change& change) const {
    const float* row = whole + i * kVectors * kWidth;
    VecF added = change(0, load(row));
    for (int j = 1; j < kVectors; ++j) added = added + change(j * kWidth, load(row + j * kWidth));
    return added;
  }

  // change(i, first bin, the row's e^x there) gives a vector of what is written in place of row i's bins;
  // change_last(first row, e^x) what is written in place of the last bins of a vector of rows.
  template <class Change, class ChangeLast>
  GFL_MEMBER void write(float* rows, int64_t stride, const Change& change, const ChangeLast& change_last) const {
    for (int first = 0; first < kGroupRows; first += kWidth) {
      float left_over[2 * kWidth] = {};
      if (kOneMore) store(left_over, change_last(first, load(last + first)));
      if (kStoresLines && bins == 17 && stride == bins) {
        VecF changed[kWidth];
        for (int i = 0; i < kWidth; ++i) changed[i] = change(first + i, 0, load(whole + (first + i) * kWidth));
        store_lines(changed, left_over, rows + first * bins);
        continue;
      }
      for (int i = first; i < first + kWidth; ++i) {
        for (int j = 0; j < kVectors; ++j) {
          store(rows + i * stride + j * kWidth, change(i, j * kWidth, load(whole + (i * kVectors + j) * kWidth)));
        }
        if (kOneMore) rows[i * stride + kLast] = left_over[i - first];
      }
    }
  }
};

}  // namespace gfl
