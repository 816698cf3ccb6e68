// FCOS's assignment, one cell and one ground truth at a time.
//
// The point of cell (x, y) of a level is ((x + offset) stride, (y + offset) stride); l, t, r, b are its distances to the
// sides of a gt. A cell learns a gt if its point lies inside of the square of `radius` strides around the gt's centre, cut to
// the gt, and if the longest of its distances is in the level's range. Of several gts it learns the smallest.
//
//   centerness   sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))
#pragma once

#include "assignment.h"

namespace gfl {

template <class T>
struct Fcos {
  gfl_fcos_assign op;
  GroundTruths<T> gts;
  AnchorGrid grid;
  int64_t anchors = 0;

  GFL_MEMBER explicit Fcos(const gfl_fcos_assign& op_)
      : op(op_),
        gts{static_cast<const T*>(op_.gt_boxes), nullptr, op_.gt_counts, op_.num_gts, 0},
        grid(op_.levels, 0, op_.center_offset) {
    for (int i = 0; i < op_.levels.count; ++i) {
      anchors += static_cast<int64_t>(op_.levels.level[i].height) * op_.levels.level[i].width;
    }
  }

  GFL_MEMBER int32_t* assigned(int64_t image) const { return op.assigned_gt + image * anchors; }

  GFL_MEMBER Point<T> point(int level, int64_t anchor) const {
    const gfl_level& of = grid.levels.level[level];
    const int cell = static_cast<int>(anchor - grid.first[level]);
    const T offset = static_cast<T>(op.center_offset);
    const T stride = static_cast<T>(of.stride);
    return {(static_cast<T>(cell % of.width) + offset) * stride, (static_cast<T>(cell / of.width) + offset) * stride};
  }

  // What a point must lie inside of.
  GFL_MEMBER Box<T> reach(int level, const Box<T>& gt) const {
    if (!(op.radius > 0)) return gt;
    const T half = static_cast<T>(grid.levels.level[level].stride * op.radius);
    const T x = (gt.x1 + gt.x2) / 2;
    const T y = (gt.y1 + gt.y2) / 2;
    return {larger(x - half, gt.x1), larger(y - half, gt.y1), x + half > gt.x2 ? gt.x2 : x + half,
            y + half > gt.y2 ? gt.y2 : y + half};
  }
  // The cells whose points can be in there and in the range.
  GFL_MEMBER Cells candidates(int level, const Box<T>& gt, const Box<T>& reach) const {
    const T most = static_cast<T>(op.ranges.high[level]);
    const T right = gt.x1 + most;
    const T bottom = gt.y1 + most;
    return grid.covered(level, Box<T>{larger(gt.x2 - most, reach.x1), larger(gt.y2 - most, reach.y1),
                                      right < reach.x2 ? right : reach.x2, bottom < reach.y2 ? bottom : reach.y2});
  }
  // To the left, top, right and bottom side.
  static GFL_MEMBER Box<T> distances(const Point<T>& point, const Box<T>& gt) {
    return {point.x - gt.x1, point.y - gt.y1, gt.x2 - point.x, gt.y2 - point.y};
  }
  GFL_MEMBER bool may_learn(int level, const Point<T>& point, const Box<T>& gt, const Box<T>& reach) const {
    const Box<T> to = distances(point, gt);
    const T longest = larger(larger(to.x1, to.x2), larger(to.y1, to.y2));
    return inside(point, reach, T()) && longest >= static_cast<T>(op.ranges.low[level]) &&
           longest <= static_cast<T>(op.ranges.high[level]);
  }
  // A total order of the gts that a cell may learn.
  GFL_MEMBER bool is_stronger(int64_t image, int32_t gt, T area, int32_t rival) const {
    const T other = box_area(gts.box(image, rival));
    return area < other || (area == other && gt < rival);
  }

  GFL_MEMBER void finish(int64_t image, int64_t anchor) const {
    const int64_t place = image * anchors + anchor;
    const int32_t gt = op.assigned_gt[place];
    T* to = static_cast<T*>(op.distances) + 4 * place;
    T& centerness = static_cast<T*>(op.centerness)[place];
    if (gt < 0) {
      to[0] = to[1] = to[2] = to[3] = centerness = T();
      return;
    }
    int level = grid.levels.count - 1;
    while (anchor < grid.first[level]) --level;
    const Box<T> sides = distances(point(level, anchor), gts.box(image, gt));
    to[0] = sides.x1;
    to[1] = sides.y1;
    to[2] = sides.x2;
    to[3] = sides.y2;
    centerness = square_root(shorter_of_longer(sides.x1, sides.x2) * shorter_of_longer(sides.y1, sides.y2));
  }

 private:
  static GFL_MEMBER T shorter_of_longer(T a, T b) { return a < b ? a / b : b / a; }
};

}  // namespace gfl
