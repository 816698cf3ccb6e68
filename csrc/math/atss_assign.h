// Adaptive training sample selection for one ground truth, from the geometry of the grid alone.
//
// Cell (x, y) of a level has the anchor centre ((x + offset) stride, (y + offset) stride); its anchor is the square of
// side `scale` strides around it. The candidates of a ground truth are the k cells of each level whose centres are
// nearest to its own (ties to the lower index y width + x); its threshold is mean + unbiased standard deviation of the
// candidates' IoUs over all levels; positive is a candidate whose IoU reaches it and whose centre lies more than 0.01
// pixels inside the box.
//
// The k nearest cells without looking at all: sort the columns by their distance to the centre, and the rows. A cell in
// column rank i and row rank j has (i + 1)(j + 1) - 1 cells that are at least as near in both axes, hence only those with
// (i + 1)(j + 1) <= k can be among the k nearest: 23 cells for k = 9. Where k is above kFewCandidates, these become
// many, and the cells are found as a disc: cell_disc.h.
#pragma once

#include "cell_disc.h"
#include "iou.h"

namespace gfl {

constexpr int kFewCandidates = 32;  // of one level
constexpr double kInsideMargin = 0.01;

// One level as one image sees it: only `height` x `width` cells are valid, of rows that are `row_cells` long.
template <class T>
struct AtssLevel {
  int height;
  int width;
  int row_cells;
  T stride;
  T offset;  // in pixels
  T half_side;
};

template <class T>
struct AtssCandidate {
  T distance;  // squared
  int x;
  int y;
};

// Of a row or column of cells.
template <class T>
GFL_FN T cell_center(int cell, T stride, T offset) {
  return static_cast<T>(cell) * stride + offset;
}

// The `count` of `cells` places along an axis that are nearest to c, nearest first, the lower one where two tie.
template <class T>
GFL_FN void nearest_on_axis(T c, T stride, T offset, int cells, int count, int* places, T* distances) {
  const T position = (c - offset) / stride;
  const T last = static_cast<T>(cells - 1);
  int lower = position < T() ? -1 : position >= last ? cells - 1 : static_cast<int>(position);
  int upper = lower + 1;
  for (int rank = 0; rank < count; ++rank) {
    const T below = c - cell_center(lower, stride, offset);
    const T above = cell_center(upper, stride, offset) - c;
    const bool take_lower = upper >= cells || (lower >= 0 && absolute(below) <= absolute(above));
    places[rank] = take_lower ? lower : upper;
    distances[rank] = take_lower ? below : above;
    lower -= take_lower;
    upper += !take_lower;
  }
}

template <class T>
GFL_FN bool nearer(const AtssCandidate<T>& a, const AtssCandidate<T>& b) {
  if (a.distance != b.distance) return a.distance < b.distance;
  return a.y != b.y ? a.y < b.y : a.x < b.x;
}

// Leaves the level's candidates, at most k; returns how many. The centre must be finite.
template <class T>
GFL_FN int nearest_cells(const AtssLevel<T>& level, T center_x, T center_y, int k, AtssCandidate<T>* nearest) {
  int columns[kFewCandidates], rows[kFewCandidates];
  T across[kFewCandidates], down[kFewCandidates];
  const int num_columns = level.width < k ? level.width : k;
  const int num_rows = level.height < k ? level.height : k;
  nearest_on_axis(center_x, level.stride, level.offset, level.width, num_columns, columns, across);
  nearest_on_axis(center_y, level.stride, level.offset, level.height, num_rows, rows, down);
  int found = 0;
  for (int j = 0; j < num_rows; ++j) {
    for (int i = 0; i < num_columns && (i + 1) * (j + 1) <= k; ++i) {
      const AtssCandidate<T> cell{across[i] * across[i] + down[j] * down[j], columns[i], rows[j]};
      if (found == k && !nearer(cell, nearest[k - 1])) continue;
      int place = found < k ? found++ : k - 1;
      for (; place > 0 && nearer(cell, nearest[place - 1]); --place) nearest[place] = nearest[place - 1];
      nearest[place] = cell;
    }
  }
  return found;
}

// As many candidates as there are cells, or topk.
template <class T>
GFL_FN int64_t candidates_of(const AtssLevel<T>& level, int topk) {
  const int64_t cells = static_cast<int64_t>(level.height) * level.width;
  return cells < topk ? cells : topk;
}

// The level as seen from a centre; it must have cells.
template <class T>
GFL_FN CellDisc<T> cells_around(const AtssLevel<T>& level, T center_x, T center_y) {
  return {AxisView<T>(center_x, level.stride, level.offset, level.width),
          AxisView<T>(center_y, level.stride, level.offset, level.height)};
}

template <class T>
GFL_FN Box<T> anchor_box(const AtssLevel<T>& level, int x, int y) {
  const T center_x = cell_center(x, level.stride, level.offset);
  const T center_y = cell_center(y, level.stride, level.offset);
  return {center_x - level.half_side, center_y - level.half_side, center_x + level.half_side,
          center_y + level.half_side};
}

template <class T>
GFL_FN T anchor_iou(const AtssLevel<T>& level, int x, int y, const Box<T>& box) {
  return plain_iou(anchor_box(level, x, y), box, constant<T>(kUnionFloor));
}

template <class T>
GFL_FN bool center_inside(const AtssLevel<T>& level, int x, int y, const Box<T>& box) {
  const T center_x = cell_center(x, level.stride, level.offset);
  const T center_y = cell_center(y, level.stride, level.offset);
  const T margin = constant<T>(kInsideMargin);
  return center_x - box.x1 > margin && center_y - box.y1 > margin && box.x2 - center_x > margin &&
         box.y2 - center_y > margin;
}

// Mean + unbiased standard deviation; one value alone has no deviation, and NaN admits nobody.
GFL_FN double atss_threshold(double mean, double squares, int64_t count) {
  return mean + sqrt(squares / static_cast<double>(count - 1));
}

// Valid cells along an axis of `cells`, in an image of `pixels`.
template <class T>
GFL_FN int valid_cells(T pixels, T stride, int cells) {
  const T wanted = pixels / stride;
  if (!(wanted > T())) return 0;
  if (wanted >= static_cast<T>(cells)) return cells;
  const int whole = static_cast<int>(wanted);
  return static_cast<T>(whole) < wanted ? whole + 1 : whole;
}

// `shape` is the height and width of the image's valid part in pixels, or NULL.
template <class T>
GFL_FN AtssLevel<T> atss_level(const gfl_level& whole, const T* shape, double anchor_scale, double center_offset) {
  const T stride = static_cast<T>(whole.stride);
  return {shape ? valid_cells(shape[0], stride, whole.height) : whole.height,
          shape ? valid_cells(shape[1], stride, whole.width) : whole.width,
          whole.width,
          stride,
          static_cast<T>(center_offset) * stride,
          static_cast<T>(anchor_scale) * stride * static_cast<T>(0.5)};
}

// NaN and infinite boxes have none.
template <class T>
GFL_FN bool box_center(const Box<T>& box, T& x, T& y) {
  x = (box.x1 + box.x2) / 2;
  y = (box.y1 + box.y2) / 2;
  return absolute(x) < static_cast<T>(HUGE_VAL) && absolute(y) < static_cast<T>(HUGE_VAL);
}

}  // namespace gfl
