// Assignment by the lowest costs, one anchor and one ground truth at a time: RTMDet's dynamic soft labels and SimOTA.
//
//   candidates  anchors whose point is inside of any gt; with SimOTA also those near the centre of any
//   u           IoU of the anchor's box with the gt's
//   cost        w_cls * classes - w_iou log(u + 1e-7) + place, of every candidate and every gt
//   classes     the sum over the classes of a negative's term, but of the gt's class that of a positive
//                 soft labels   negative sp(x) p^2, positive bce(x, u) (u - p)^2      of logits x, p = sigmoid(x)
//                 SimOTA        negative -log(1 - p), positive -log p, at most 100    of probabilities p
//   place         soft labels   10^(distance of point and centre / stride - radius)
//                 SimOTA        1e5 unless the point is inside of the gt and within radius strides of its centre
//   claims      of a gt: the k candidates with the lowest cost, k = sum of its topk highest u, rounded down, at least 1
//   winner      of an anchor that several claim: the lowest cost of all gts, claimants or not
//
// The sum over the classes of an anchor is made once. What has to be taken out of it for a gt's class may be nearly all of
// it, so it is kept in two parts: the largest term, and the rest. A gt of the largest term's class adds the rest alone; for
// any other, the sum that remains is at least as large as what is taken out.
//
// Which candidates can be among the lowest k: all, since a far one may have to do. No part of a cost is below 0, up to
// rounding, so that each part alone says where a pair cannot come below a known cost. These bounds take a few operations
// and no logarithm, and few pairs pass them.
#pragma once

#include "assignment.h"
#include "class_loss.h"

namespace gfl {

constexpr double kIouCostEps = 1e-7;
constexpr double kFarCost = 1e5;

// A pair as the bounds see it.
template <class T>
struct CostPair {
  Box<T> box;
  Box<T> gt;
  Point<T> point;
  T stride;
  T rest;  // of the sum over the classes, without the largest term
};

// What the parts of a cost must stay below for it to come below another one, or a little more.
template <class T>
struct CostBounds {
  T classes;  // where boxes overlap
  T apart;    // where they do not
  T iou;      // below it -log u is too much
};

template <class T>
struct ClassSums {
  T largest;
  T rest;
  int32_t of_largest;  // class; the number of classes where there is no such term
};

// What the anchors' sums take of the workspace.
GFL_FN int64_t cost_assign_sums_bytes(const gfl_cost_assign& op) {
  const int64_t number = op.dtype == GFL_FLOAT64 ? sizeof(double) : sizeof(float);
  const int64_t bytes = op.batch * op.anchors * (2 * number + static_cast<int64_t>(sizeof(int32_t)));
  return (bytes + 7) / 8 * 8;
}

template <class T>
GFL_FN Point<T> center_of(const Box<T>& box) {
  return {(box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2};
}

// What both kinds of cost share. Derived has the terms of classes and place.
template <class T, class Derived>
struct CostAssign {
  gfl_cost_assign op;
  GroundTruths<T> gts;
  T radius;
  T cls_weight;
  T iou_weight;
  T apart_cost;  // of an IoU of 0

  explicit CostAssign(const gfl_cost_assign& op_)
      : op(op_),
        gts{static_cast<const T*>(op_.gt_boxes), op_.gt_labels, op_.gt_counts, op_.num_gts, op_.classes},
        radius(static_cast<T>(op_.center_radius)),
        cls_weight(static_cast<T>(op_.cls_weight)),
        iou_weight(static_cast<T>(op_.iou_weight)),
        apart_cost(cost_of_iou(T())) {}

  GFL_MEMBER const Derived& self() const { return static_cast<const Derived&>(*this); }

  // ---- the tensors ----

  GFL_MEMBER int64_t place(int64_t image, int64_t anchor) const { return image * op.anchors + anchor; }
  GFL_MEMBER int32_t& winner(int64_t image, int64_t anchor) const { return op.assigned_gt[place(image, anchor)]; }
  GFL_MEMBER T& found_iou(int64_t image, int64_t anchor) const {
    return static_cast<T*>(op.assigned_iou)[place(image, anchor)];
  }
  GFL_MEMBER T* largest_terms() const { return static_cast<T*>(op.workspace); }
  GFL_MEMBER T* rests() const { return largest_terms() + op.batch * op.anchors; }
  GFL_MEMBER int32_t* largest_classes() const { return reinterpret_cast<int32_t*>(rests() + op.batch * op.anchors); }

  GFL_MEMBER Box<T> box(int64_t image, int64_t anchor) const {
    const T* corners = static_cast<const T*>(op.boxes) + place(image, anchor) * 4;
    return {corners[0], corners[1], corners[2], corners[3]};
  }
  GFL_MEMBER Point<T> point(int64_t anchor) const {
    const T* x = static_cast<const T*>(op.points) + 2 * anchor;
    return {x[0], x[1]};
  }
  GFL_MEMBER T stride(int64_t anchor) const { return static_cast<const T*>(op.strides)[anchor]; }
  GFL_MEMBER int64_t score_place(int64_t image, int64_t anchor, int64_t label) const {
    const gfl_bins& s = op.scores;
    return image * s.batch_stride + anchor * s.length_stride + label * s.channel_stride;
  }
  GFL_MEMBER T score(int64_t image, int64_t anchor, int64_t label) const {
    return Derived::cleaned(value_at<T>(op.scores, score_place(image, anchor, label)));
  }

  // Whether an anchor can be a candidate wherever it lies.
  GFL_MEMBER bool is_sound(int64_t image, int64_t anchor) const {
    const Box<T> own = box(image, anchor);
    return stride(anchor) > T() && (own.x1 - own.x1) + (own.y1 - own.y1) + (own.x2 - own.x2) + (own.y2 - own.y2) == T();
  }

  // ---- costs ----

  GFL_MEMBER T cost_of_iou(T iou) const { return -logarithm(iou + constant<T>(kIouCostEps)) * iou_weight; }

  GFL_MEMBER T class_cost(int64_t image, int64_t anchor, int64_t label, T iou) const {
    const int64_t i = place(image, anchor);
    const T own = score(image, anchor, label);
    const T rest = rests()[i];
    const T others = largest_classes()[i] == label ? rest : largest_terms()[i] + clamped(rest - Derived::negative(own));
    return others + Derived::positive(own, iou);
  }
  // NaN where there is one among the logits.
  GFL_MEMBER T cost(int64_t image, int64_t anchor, const CostPair<T>& pair, int64_t label, T iou) const {
    return class_cost(image, anchor, label, iou) * cls_weight + cost_of_iou(iou) + self().place_cost(pair);
  }

  GFL_MEMBER CostPair<T> pair(int64_t image, int64_t anchor, const Box<T>& gt) const {
    return {box(image, anchor), gt, point(anchor), stride(anchor), rests()[place(image, anchor)]};
  }

  // How many anchors a gt claims, from the sum of its highest IoUs.
  GFL_MEMBER int wanted(double sum_of_ious) const {
    const T sum = static_cast<T>(sum_of_ious);
    return sum < constant<T>(2.0) ? 1 : sum < static_cast<T>(op.topk) ? static_cast<int>(sum) : op.topk;
  }

  // ---- bounds ----

  GFL_MEMBER static T a_little_more(T cost) { return cost + absolute(cost) * constant<T>(1e-6) + constant<T>(1e-5); }

  GFL_MEMBER CostBounds<T> bounds_of_sums(T below) const {
    const T weight = iou_weight > T() ? iou_weight : constant<T>(1.0);
    const T least = below < constant<T>(80.0) * weight ? exponential(-larger(below, T()) / weight) : T();
    const T iou = iou_weight > T() ? least * constant<T>(0.9999) - constant<T>(1.001 * kIouCostEps) : constant<T>(-1.0);
    return {below, below - apart_cost * constant<T>(0.999999), iou};
  }
  // Without a branch, so that a compiler can take many pairs at once.
  GFL_MEMBER bool sums_pass(const CostBounds<T>& bounds, const CostPair<T>& pair) const {
    const Box<T>&p = pair.box, &t = pair.gt;
    const T width = (p.x2 < t.x2 ? p.x2 : t.x2) - (p.x1 > t.x1 ? p.x1 : t.x1);
    const T height = (p.y2 < t.y2 ? p.y2 : t.y2) - (p.y1 > t.y1 ? p.y1 : t.y1);
    const T shared = width * height;
    const bool overlap = (width > T()) & (height > T());
    const T classes = pair.rest * cls_weight;
    const bool enough = shared > bounds.iou * (box_area(p) + box_area(t) - shared);
    return (overlap & enough & (classes < bounds.classes)) | (!overlap & (classes < bounds.apart));
  }
};

// ---- RTMDet --------------------------------------------------------------------------------------------

template <class T>
struct SoftLabelBounds {
  CostBounds<T> sums;
  T reach;  // squared distance in strides
};

template <class T>
struct SoftLabelCost : CostAssign<T, SoftLabelCost<T>> {
  using Base = CostAssign<T, SoftLabelCost<T>>;
  using Bounds = SoftLabelBounds<T>;
  using Base::Base;

  GFL_MEMBER static T cleaned(T logit) { return logit; }
  // Of logits whose term is nothing beside any other.
  GFL_MEMBER static T no_score() { return static_cast<T>(-HUGE_VAL); }

  template <class V>
  static GFL_MEMBER V negative(V logit) {
    const SigmoidParts<V> parts = sigmoid_parts(logit);
    return capped(softplus(logit, parts)) * (parts.p * parts.p);
  }
  static GFL_MEMBER T positive(T logit, T iou) {
    const SigmoidParts<T> parts = sigmoid_parts(logit);
    const T apart = iou - parts.p;
    return bce_with_logits(logit, iou, parts) * (apart * apart);
  }

  GFL_MEMBER T place_cost(const CostPair<T>& pair) const {
    const Point<T> center = center_of(pair.gt);
    const T dx = pair.point.x - center.x;
    const T dy = pair.point.y - center.y;
    return any_power(constant<T>(10.0), square_root(dx * dx + dy * dy) / pair.stride - this->radius);
  }
  GFL_MEMBER bool can_hold(const Point<T>& point, T, const Box<T>& gt) const { return inside(point, gt, T()); }

  GFL_MEMBER Bounds below(T cost) const {
    const T limit = this->a_little_more(cost);
    const T largest = sizeof(T) == sizeof(float) ? constant<T>(3.4028234663852886e38) : static_cast<T>(1e308);
    const T decades =
        logarithm(limit < largest ? larger(limit, constant<T>(1e-30)) : largest) * constant<T>(0.43429448);
    const T reach =
        larger(this->radius + decades + constant<T>(1e-3) + absolute(this->radius) * constant<T>(1e-6), T());
    return {this->bounds_of_sums(limit), reach * reach * constant<T>(1.00001)};
  }
  GFL_MEMBER bool may_be_below(const Bounds& bounds, const CostPair<T>& pair) const {
    const Point<T> center = center_of(pair.gt);
    const T dx = pair.point.x - center.x;
    const T dy = pair.point.y - center.y;
    const bool close = dx * dx + dy * dy <= bounds.reach * (pair.stride * pair.stride);
    return close & this->sums_pass(bounds.sums, pair);
  }
};

// ---- SimOTA --------------------------------------------------------------------------------------------

template <class T>
struct SimotaBounds {
  CostBounds<T> near;
  CostBounds<T> far;
};

template <class T>
struct SimotaCost : CostAssign<T, SimotaCost<T>> {
  using Base = CostAssign<T, SimotaCost<T>>;
  using Bounds = SimotaBounds<T>;
  using Base::Base;

  GFL_MEMBER static T cleaned(T p) {
    const T most = constant<T>(1.0);
    return p > T() ? (p < most ? p : most) : T();
  }
  GFL_MEMBER static T no_score() { return T(); }

  template <class V>
  static GFL_MEMBER V negative(V p) {
    return -maximum(log_complement(p), constant<V>(-100.0));
  }
  // Denormal numbers are raised by 2^24.
  static GFL_MEMBER T positive(T p, T) {
    const bool small = p < constant<T>(1.2e-38);
    const T log_p = logarithm(small ? p * constant<T>(16777216.0) : p) - (small ? constant<T>(16.635532) : T());
    return -maximum(log_p, constant<T>(-100.0));
  }

  GFL_MEMBER bool near_center(const Point<T>& point, T stride, const Box<T>& gt) const {
    const Point<T> center = center_of(gt);
    const T reach = this->radius * stride;
    return (point.x - (center.x - reach) > T()) & (point.y - (center.y - reach) > T()) &
           ((center.x + reach) - point.x > T()) & ((center.y + reach) - point.y > T());
  }
  GFL_MEMBER bool is_near(const CostPair<T>& pair) const {
    const Box<T>& gt = pair.gt;
    return (pair.point.x - gt.x1 > T()) & (pair.point.y - gt.y1 > T()) & (gt.x2 - pair.point.x > T()) &
           (gt.y2 - pair.point.y > T()) & near_center(pair.point, pair.stride, gt);
  }
  GFL_MEMBER T place_cost(const CostPair<T>& pair) const { return is_near(pair) ? T() : constant<T>(kFarCost); }
  GFL_MEMBER bool can_hold(const Point<T>& point, T stride, const Box<T>& gt) const {
    return inside(point, gt, T()) | near_center(point, stride, gt);
  }

  GFL_MEMBER Bounds below(T cost) const {
    const T limit = this->a_little_more(cost);
    return {this->bounds_of_sums(limit), this->bounds_of_sums(limit - constant<T>(kFarCost))};
  }
  GFL_MEMBER bool may_be_below(const Bounds& bounds, const CostPair<T>& pair) const {
    const bool near = is_near(pair);
    const CostBounds<T> own{near ? bounds.near.classes : bounds.far.classes,
                            near ? bounds.near.apart : bounds.far.apart, near ? bounds.near.iou : bounds.far.iou};
    return this->sums_pass(own, pair);
  }
};

}  // namespace gfl
