// What the assigners share: which ground truths take part, which points lie inside of a box, in which cells of a grid those
// can be, and the order of candidates.
//
// Anchors are numbered level after level, row after row. Where nothing is known of where they are, they count as one level
// with a single row, and every box covers it whole.
#pragma once

#include "half.h"
#include "iou.h"

namespace gfl {

constexpr int kMostTopk = 256;

// The states of an anchor while claims arrive; GFL_BACKGROUND and a gt's index are the others.
constexpr int32_t kContested = -3;

template <class T>
struct Point {
  T x, y;
};

template <class T>
GFL_FN bool inside(const Point<T>& point, const Box<T>& box, T margin) {
  return point.x - box.x1 > margin && point.y - box.y1 > margin && box.x2 - point.x > margin &&
         box.y2 - point.y > margin;
}

// Sides below `least` become that long, around their middle.
template <class T>
GFL_FN void enlarge(T& low, T& high, T least) {
  if (!(high - low < least)) return;
  const T middle = (low + high) / 2;
  low = middle - least / 2;
  high = middle + least / 2;
}
template <class T>
GFL_FN Box<T> enlarged(Box<T> box, T least) {
  enlarge(box.x1, box.x2, least);
  enlarge(box.y1, box.y2, least);
  return box;
}

template <class T>
GFL_FN T overlapping_iou(const Box<T>& p, const Box<T>& t) {
  const Overlap<T> overlap(p, t);
  return overlap.area > T() ? overlap.area / maximum(overlap.sum, constant<T>(kUnionFloor)) : T();
}

GFL_FN float any_power(float base, float exponent) { return powf(base, exponent); }
GFL_FN double any_power(double base, double exponent) { return ::pow(base, exponent); }

template <class T>
GFL_FN T value_at(const gfl_bins& values, int64_t offset) {
  switch (values.dtype) {
    case GFL_FLOAT64:
      return static_cast<T>(static_cast<const double*>(values.data)[offset]);
    case GFL_FLOAT32:
      return static_cast<T>(static_cast<const float*>(values.data)[offset]);
    case GFL_BFLOAT16:
      return static_cast<T>(widen(static_cast<const bfloat16*>(values.data)[offset]));
    default:
      return static_cast<T>(widen(static_cast<const float16*>(values.data)[offset]));
  }
}

// The ground truths of all images, padded to the same number.
template <class T>
struct GroundTruths {
  const T* boxes;         // (batch, most, 4)
  const int64_t* labels;  // NULL: they do not matter
  const int64_t* counts;  // NULL: all are real
  int64_t most;
  int64_t classes;

  GFL_MEMBER int64_t count(int64_t image) const {
    const int64_t given = counts ? counts[image] : most;
    return given < 0 ? 0 : given < most ? given : most;
  }
  GFL_MEMBER Box<T> box(int64_t image, int64_t gt) const {
    const T* corners = boxes + (image * most + gt) * 4;
    return {corners[0], corners[1], corners[2], corners[3]};
  }
  GFL_MEMBER int64_t label(int64_t image, int64_t gt) const { return labels[image * most + gt]; }
  // Its sides are finite and above 0, and its label, where they matter, is a class.
  GFL_MEMBER bool takes_part(int64_t image, int64_t gt) const {
    if (gt >= count(image)) return false;
    const Box<T> own = box(image, gt);
    const T width = own.x2 - own.x1;
    const T height = own.y2 - own.y1;
    const T infinite = static_cast<T>(HUGE_VAL);
    if (!(width > T() && width < infinite && height > T() && height < infinite)) return false;
    return !labels || (label(image, gt) >= 0 && label(image, gt) < classes);
  }
};

// Cells that lie side by side in `rows` rows of a level.
struct Cells {
  int64_t first;  // anchor
  int columns;
  int rows;
  int row_cells;  // from one row to the next

  GFL_MEMBER int64_t count() const { return static_cast<int64_t>(columns) * rows; }
  GFL_MEMBER int64_t anchor(int64_t i) const { return first + i / columns * row_cells + i % columns; }
};

// How many cells along an axis have their centre below a coordinate, or a few more: their centres are compared again.
template <class T>
GFL_FN int cells_below(T coordinate, T stride, T offset, int cells, int more) {
  const T position = coordinate / stride - offset;
  if (!(position > T())) return position > static_cast<T>(-1) ? (more < cells ? more : cells) : 0;
  if (position >= static_cast<T>(cells)) return cells;
  const int whole = static_cast<int>(position) + more;
  return whole < cells ? whole : cells;
}

struct AnchorGrid {
  gfl_levels levels;
  int64_t first[GFL_MAX_LEVELS];  // anchor of each level
  bool anywhere;                  // nothing is known of where the anchors are
  double offset;                  // of a cell's centre, in strides

  GFL_MEMBER AnchorGrid(const gfl_levels& given, int64_t anchors, double center_offset)
      : levels(given), first{}, anywhere(given.count == 0), offset(center_offset) {
    if (anywhere) levels.count = 1;
    if (anywhere) levels.level[0] = {1, static_cast<int32_t>(anchors), 1.0};
    for (int i = 1; i < levels.count; ++i) first[i] = first[i - 1] + size(i - 1);
  }
  GFL_MEMBER int64_t size(int i) const { return static_cast<int64_t>(levels.level[i].height) * levels.level[i].width; }

  // The cells of a level whose centres a box can hold.
  template <class T>
  GFL_MEMBER Cells covered(int i, const Box<T>& box) const {
    const gfl_level& level = levels.level[i];
    if (anywhere) return {0, level.width, 1, level.width};
    const T stride = static_cast<T>(level.stride);
    const T shift = static_cast<T>(offset);
    const int left = cells_below(box.x1, stride, shift, level.width, 0);
    const int top = cells_below(box.y1, stride, shift, level.height, 0);
    const int right = cells_below(box.x2, stride, shift, level.width, 2);
    const int bottom = cells_below(box.y2, stride, shift, level.height, 2);
    return {first[i] + static_cast<int64_t>(top) * level.width + left, right > left ? right - left : 0,
            bottom > top ? bottom - top : 0, level.width};
  }
};

template <class T>
struct Candidate {
  T value;
  int32_t anchor;
};

// The higher value comes first, and of equal ones the lower index.
template <class T>
GFL_FN bool better(const Candidate<T>& a, const Candidate<T>& b) {
  return a.value > b.value || (a.value == b.value && a.anchor < b.anchor);
}

// A claim to an anchor that nobody else may take unheard. `exchange` is an atomic compare-and-swap that returns what it
// saw. Two claims leave kContested, in whatever order they come.
template <class Exchange>
GFL_FN void claim(int32_t* winner, int32_t gt, const Exchange& exchange) {
  int32_t seen = exchange(winner, GFL_BACKGROUND, gt);
  while (seen >= 0) {
    const int32_t before = exchange(winner, seen, kContested);
    if (before == seen) return;
    seen = before;
  }
}

// A claim that replaces a weaker one: beats(rival) is a total order, so that the winner does not depend on who came first.
template <class Exchange, class Beats>
GFL_FN void claim_from_weaker(int32_t* winner, int32_t gt, const Exchange& exchange, const Beats& beats) {
  int32_t expected = GFL_BACKGROUND;
  for (;;) {
    const int32_t seen = exchange(winner, expected, gt);
    if (seen == expected) return;
    if (!beats(seen)) return;
    expected = seen;
  }
}

}  // namespace gfl
