// The k cells of a level that are nearest to a place, for any k and without a list of them.
//
// They are the cells of a disc, and of those that lie just on its edge the first few. Its squared radius is found by
// halving: a step counts the cells in a disc, which lie side by side in each row. Distances are those that a comparison of
// two cells would take, rounding included.
#pragma once

#include "portable.h"

namespace gfl {

// Cells side by side along an axis.
struct Run {
  int begin;
  int end;

  GFL_MEMBER int size() const { return end - begin; }
  GFL_MEMBER bool has(int cell) const { return cell >= begin && cell < end; }
};

// The rows or columns of a level as seen from a place.
template <class T>
struct AxisView {
  T place;
  T stride;
  T offset;
  int cells;  // at least 1
  int nearest;

  AxisView() = default;
  GFL_MEMBER AxisView(T place_, T stride_, T offset_, int cells_)
      : place(place_), stride(stride_), offset(offset_), cells(cells_), nearest(0) {
    const T position = (place - offset) / stride;
    const int lower = position >= static_cast<T>(cells - 1) ? cells - 1
                      : position > T()                      ? static_cast<int>(position)
                                                            : 0;
    nearest = lower + 1 < cells && squared(lower + 1) < squared(lower) ? lower + 1 : lower;
  }

  GFL_MEMBER T squared(int cell) const {
    const T distance = static_cast<T>(cell) * stride + offset - place;
    return distance * distance;
  }
  // The cells whose squared distance and `more` together are at most `most`.
  GFL_MEMBER Run within(T most, T more) const {
    const auto has = [&](int cell) { return squared(cell) + more <= most; };
    if (!has(nearest)) return {nearest, nearest};
    return {has(0) ? 0 : first_that(1, nearest, has), has(cells - 1) ? cells : last_that(nearest, cells - 2, has) + 1};
  }

 private:
  // The condition holds from some cell on, at `to` at the latest.
  template <class Condition>
  static GFL_MEMBER int first_that(int from, int to, const Condition& condition) {
    while (from < to) {
      const int middle = from + (to - from) / 2;
      if (condition(middle)) {
        to = middle;
      } else {
        from = middle + 1;
      }
    }
    return to;
  }
  // The condition holds up to some cell, up to `from` at least.
  template <class Condition>
  static GFL_MEMBER int last_that(int from, int to, const Condition& condition) {
    while (from < to) {
      const int middle = to - (to - from) / 2;
      if (condition(middle)) {
        from = middle;
      } else {
        to = middle - 1;
      }
    }
    return from;
  }
};

// The numbers from 0 to infinity, in their order.
GFL_FN int64_t place_of(float distance) { return static_cast<int64_t>(float_bits(distance)); }
GFL_FN int64_t place_of(double distance) {
  int64_t bits;
  memcpy(&bits, &distance, sizeof bits);
  return bits;
}
GFL_FN void at_place(int64_t place, float& distance) { distance = bits_float(static_cast<uint32_t>(place)); }
GFL_FN void at_place(int64_t place, double& distance) { memcpy(&distance, &place, sizeof distance); }

template <class T>
struct CellDisc {
  AxisView<T> columns;
  AxisView<T> rows;
  T inner = static_cast<T>(-1);  // cells whose squared distance is at most this are in
  T outer = static_cast<T>(-1);  // of those beyond it and at most this, `on_edge` in their order
  int64_t on_edge = 0;

  GFL_MEMBER Run rows_within(T most) const { return rows.within(most, columns.squared(columns.nearest)); }
  GFL_MEMBER Run columns_within(int row, T most) const { return columns.within(most, rows.squared(row)); }

  // Makes it the disc of k cells; there must be so many. count(most) tells how many cells have at most that distance.
  template <class Count>
  GFL_MEMBER void hold(int64_t k, const Count& count) {
    int64_t low = -1;
    int64_t high = place_of(static_cast<T>(HUGE_VAL));
    int64_t inside = 0;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      at_place(middle, outer);
      const int64_t found = count(outer);
      if (found == k) {
        inner = outer;
        return;
      }
      if (found < k) inside = found;
      (found < k ? low : high) = middle;
    }
    if (low >= 0) at_place(low, inner);
    at_place(high, outer);
    on_edge = k - inside;
  }

  GFL_MEMBER int on_edge_of_row(int row) const {
    return columns_within(row, outer).size() - columns_within(row, inner).size();
  }
  // Calls use(column) for the cells of a row, whose first `edge` cells on the edge are in.
  template <class Use>
  GFL_MEMBER void for_each_of_row(int row, int64_t edge, const Use& use) const {
    const Run in = columns_within(row, inner);
    const Run all = columns_within(row, outer);
    for (int column = all.begin; column < all.end; ++column) {
      if (!in.has(column) && edge-- <= 0) continue;
      use(column);
    }
  }
};

}  // namespace gfl
