// Task-aligned assignment (TOOD), one anchor and one ground truth at a time.
//
//   metric   t = s^alpha u^beta    s: the anchor's score for the gt's class, in [0, 1]; u: IoU of the anchor's box with the
//                                  gt's, or CIoU. Below 0 and NaN count as 0; without u there is no t
//   claims   of a gt: the k anchors with the highest t > 0 of those whose point is inside of it; or of all anchors, and
//            of these k those inside
//   winner   of an anchor that several claim: the highest u of the gts that it is inside of; or of those that claim it
//   score    t / (best t of the gt + eps) * best u of the gt, over the anchors that the gt has won
//
//   CIoU = IoU - rho2 / c2 - a v    v = (2 / pi)^2 (atan(tw / th) - atan(pw / ph))^2, a = v / (1 - IoU + v), eps added to
//                                   each denominator
#pragma once

#include "assignment.h"
#include "detection.h"
#include "half.h"

namespace gfl {

// The metric's u, for whoever asks for one above `bar` alone: the other terms of a CIoU only lower the IoU, which decides
// first. Anything at or below the bar may come out as 0.
template <class T>
GFL_FN T complete_iou(const Box<T>& p, const Box<T>& t, T bar) {
  const T eps = constant<T>(1e-7);
  const Overlap<T> overlap(p, t);
  if (!(overlap.area > T())) return T();
  const T iou = overlap.area / (overlap.sum + eps);
  if (!(iou > bar)) return T();
  const Enclosure<T> hull(p, t);
  const T dx = (p.x1 + p.x2 - t.x1 - t.x2) / 2;
  const T dy = (p.y1 + p.y2 - t.y1 - t.y2) / 2;
  const T apart = (dx * dx + dy * dy) / (hull.width * hull.width + hull.height * hull.height + eps);
  // atan(a / b) - atan(c / d) = atan((a d - b c) / (b d + a c)), all of them being above 0
  const T a = t.x2 - t.x1, b = t.y2 - t.y1 + eps, c = p.x2 - p.x1, d = p.y2 - p.y1 + eps;
  const T angle = arctangent((a * d - b * c) / (b * d + a * c));
  const T shape = constant<T>(0.40528473456935109) * (angle * angle);  // 4 / pi^2
  return iou - (apart + shape * shape / (shape - iou + (constant<T>(1.0) + eps)));
}

// base^exponent for base >= 0. Whole exponents, which are usual, take products.
template <class T>
struct ScorePower {
  T exponent;
  int whole;  // -1 where it is not

  GFL_MEMBER explicit ScorePower(double value)
      : exponent(static_cast<T>(value)),
        whole(value >= 0 && value <= 16 && value == static_cast<int>(value) ? static_cast<int>(value) : -1) {}

  GFL_MEMBER T of(T base) const {
    if (whole < 0) return exponent == constant<T>(0.5) ? square_root(base) : any_power(base, exponent);
    T result = constant<T>(1.0);
    T square = base;
    for (int left = whole; left > 0; left >>= 1) {
      if (left & 1) result = result * square;
      square = square * square;
    }
    return result;
  }
};

template <class T>
struct TaskAlignedPair {
  T iou;
  T metric;
};

// What is known of a gt's anchors when all are handed out.
template <class T>
struct TaskAlignedBest {
  T metric;
  T iou;
  Candidate<T> last;  // worse ones go
};

GFL_FN int64_t task_aligned_best_bytes(const gfl_task_aligned_assign& op) {
  const int64_t of_gt = op.dtype == GFL_FLOAT64 ? sizeof(TaskAlignedBest<double>) : sizeof(TaskAlignedBest<float>);
  return op.batch * op.num_gts * of_gt;
}

// The op's arguments, and what they say of an anchor and a gt.
template <class T>
struct TaskAligned {
  gfl_task_aligned_assign op;
  GroundTruths<T> gts;
  AnchorGrid grid;
  ScorePower<T> alpha;
  ScorePower<T> beta;

  GFL_MEMBER explicit TaskAligned(const gfl_task_aligned_assign& op_)
      : op(op_),
        gts{static_cast<const T*>(op_.gt_boxes), op_.gt_labels, op_.gt_counts, op_.num_gts, op_.classes},
        grid(op_.levels, op_.anchors, op_.center_offset),
        alpha(op_.alpha),
        beta(op_.beta) {}

  GFL_MEMBER int32_t* winners(int64_t image) const { return op.assigned_gt + image * op.anchors; }
  GFL_MEMBER T* ious(int64_t image) const { return static_cast<T*>(op.assigned_iou) + image * op.anchors; }
  // First metrics, then the normalised scores.
  GFL_MEMBER T* metrics(int64_t image) const { return static_cast<T*>(op.assigned_score) + image * op.anchors; }
  GFL_MEMBER TaskAlignedBest<T>* best(int64_t image) const {
    return static_cast<TaskAlignedBest<T>*>(op.workspace) + image * op.num_gts;
  }

  GFL_MEMBER T margin() const { return constant<T>(op.inside_first ? 1e-9 : 0.01); }
  // What an anchor's point must lie inside of.
  GFL_MEMBER Box<T> reach(const Box<T>& gt) const { return enlarged(gt, static_cast<T>(op.min_side)); }
  GFL_MEMBER bool has(const Box<T>& reach, int64_t anchor) const {
    const T* point = static_cast<const T*>(op.points) + 2 * anchor;
    return inside(Point<T>{point[0], point[1]}, reach, margin());
  }

  GFL_MEMBER T iou(int64_t image, int64_t anchor, const Box<T>& gt, T bar = T()) const {
    const T* corners = static_cast<const T*>(op.boxes) + (image * op.anchors + anchor) * 4;
    const Box<T> box{corners[0], corners[1], corners[2], corners[3]};
    const T found = op.iou_kind == GFL_CIOU ? complete_iou(box, gt, bar) : overlapping_iou(box, gt);
    return found > T() ? found : T();
  }

  // A total order of the gts that claim an anchor.
  GFL_MEMBER bool is_stronger(int64_t image, int64_t anchor, int32_t gt, T of_gt, int32_t rival) const {
    const T other = iou(image, anchor, gts.box(image, rival));
    return of_gt > other || (of_gt == other && gt < rival);
  }

  struct ScorePlace {
    gfl_bins map;
    int64_t offset;
  };
  GFL_MEMBER ScorePlace score_place(int64_t image, int64_t anchor, int64_t label) const {
    int level = 0;
    while (level + 1 < op.scores.count && anchor >= grid.first[level + 1]) ++level;
    const gfl_map& m = op.scores.level[level];
    const int64_t position = op.scores.count > 1 ? anchor - grid.first[level] : anchor;
    return {{m.data, op.scores.dtype, m.batch_stride, m.channel_stride, m.position_stride},
            image * m.batch_stride + position * m.position_stride + label * m.channel_stride};
  }
  GFL_MEMBER T score(int64_t image, int64_t anchor, int64_t label) const {
    const ScorePlace place = score_place(image, anchor, label);
    T value = value_at<T>(place.map, place.offset);
    if (op.logits) value = score_of_logit(value);
    const T most = constant<T>(1.0);
    return value > T() ? (value < most ? value : most) : T();
  }

  GFL_MEMBER TaskAlignedPair<T> pair(int64_t image, int64_t anchor, const Box<T>& gt, int64_t label) const {
    const T found = iou(image, anchor, gt);
    if (!(found > T())) return {found, T()};
    return {found, alpha.of(score(image, anchor, label)) * beta.of(found)};
  }

  // The metric where it is above `bar`, else that or 0. A score is at most 1, so that an IoU that is too low needs none:
  // most scores are not read, each of which would come from memory on its own.
  GFL_MEMBER T metric_above(int64_t image, int64_t anchor, const Box<T>& gt, int64_t label, T bar) const {
    const T found = iou(image, anchor, gt, bar);
    if (!(found > bar)) return T();
    return alpha.of(score(image, anchor, label)) * beta.of(found);
  }
  // What an IoU must be above for u^beta to reach a metric, or a little less.
  GFL_MEMBER T bar_of(T metric) const {
    return beta.exponent > T() ? any_power(metric, constant<T>(1.0) / beta.exponent) * constant<T>(0.9999) : T();
  }

  GFL_MEMBER T normalized(const TaskAlignedBest<T>& of_gt, T metric) const {
    return metric * of_gt.iou / (of_gt.metric + constant<T>(op.inside_first ? 1e-9 : 1e-7));
  }
};

}  // namespace gfl
