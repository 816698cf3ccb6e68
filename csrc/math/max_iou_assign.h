// Assignment by the highest IoU (Faster R-CNN, SSD, RetinaNet), one anchor and one ground truth at a time.
//
//   m(a) = max over gts of IoU(a, g)        M(g) = max over anchors of IoU(a, g)
//   by threshold   the first gt of m(a) where m(a) >= positive; background where m(a) is in [low, high); else the anchor
//                  takes no part
//   by claim       where M(g) is above 0 and at least `least`, all anchors with IoU(a, g) = M(g), or the first of them,
//                  become g's, whatever they were. If several gts claim an anchor, the last one has it
//
// An IoU is worked out each time that it is asked for. It is the same each time, so that it can be compared with M(g).
#pragma once

#include "assignment.h"

namespace gfl {

template <class T>
struct MaxIou {
  gfl_max_iou_assign op;
  GroundTruths<T> gts;
  T positive, low, high, least;

  GFL_MEMBER explicit MaxIou(const gfl_max_iou_assign& op_)
      : op(op_),
        gts{static_cast<const T*>(op_.gt_boxes), nullptr, op_.gt_counts, op_.num_gts, 0},
        positive(constant<T>(op_.positive_iou)),
        low(constant<T>(op_.background_from)),
        high(constant<T>(op_.background_below)),
        least(constant<T>(op_.least_iou)) {}

  // ---- the workspace: what is known of each gt, side by side ----

  static GFL_MEMBER int64_t workspace_bytes(const gfl_max_iou_assign& op) {
    return op.batch * op.num_gts * static_cast<int64_t>(5 * sizeof(T) + sizeof(int32_t));
  }
  // x1, y1, x2, y2. One who takes no part has corners that overlap nothing.
  GFL_MEMBER T* corner(int which, int64_t image) const {
    return static_cast<T*>(op.workspace) + (which * op.batch + image) * op.num_gts;
  }
  GFL_MEMBER T* best(int64_t image) const { return corner(4, image); }  // M(g)
  GFL_MEMBER int32_t* first(int64_t image) const {                      // anchor with M(g)
    return reinterpret_cast<int32_t*>(corner(5, 0)) + image * op.num_gts;
  }

  GFL_MEMBER void prepare(int64_t image, int64_t gt) const {
    const T infinite = static_cast<T>(HUGE_VAL);
    const Box<T> box =
        gts.takes_part(image, gt) ? gts.box(image, gt) : Box<T>{infinite, infinite, -infinite, -infinite};
    corner(0, image)[gt] = box.x1;
    corner(1, image)[gt] = box.y1;
    corner(2, image)[gt] = box.x2;
    corner(3, image)[gt] = box.y2;
    best(image)[gt] = T();
    first(image)[gt] = INT32_MAX;
  }
  GFL_MEMBER Box<T> prepared(int64_t image, int64_t gt) const {
    return {corner(0, image)[gt], corner(1, image)[gt], corner(2, image)[gt], corner(3, image)[gt]};
  }

  // ---- anchors ----

  GFL_MEMBER int32_t* assigned(int64_t image) const { return op.assigned_gt + image * op.num_anchors; }
  GFL_MEMBER T* ious(int64_t image) const {
    return static_cast<T*>(op.assigned_iou) + image * op.num_anchors;
  }  // m(a) first
  GFL_MEMBER bool is_valid(int64_t image, int64_t anchor) const {
    return !op.valid || op.valid[image * op.valid_stride + anchor];
  }
  // One that takes no part overlaps nothing, and so does one with NaN.
  GFL_MEMBER Box<T> anchor(int64_t image, int64_t index) const {
    const T* corners = static_cast<const T*>(op.anchors) + image * op.anchors_stride + index * 4;
    const Box<T> box{corners[0], corners[1], corners[2], corners[3]};
    const T infinite = static_cast<T>(HUGE_VAL);
    const bool has_sides = box.x1 <= box.x2 && box.y1 <= box.y2;
    return has_sides && is_valid(image, index) ? box : Box<T>{infinite, infinite, -infinite, -infinite};
  }

  static GFL_MEMBER T iou(const Box<T>& anchor, T area, const Box<T>& gt) {
    const T width = (anchor.x2 < gt.x2 ? anchor.x2 : gt.x2) - (anchor.x1 > gt.x1 ? anchor.x1 : gt.x1);
    const T height = (anchor.y2 < gt.y2 ? anchor.y2 : gt.y2) - (anchor.y1 > gt.y1 ? anchor.y1 : gt.y1);
    const T shared = width * height;
    const T united = box_area(gt) + area - shared;
    const T found = shared / (united > constant<T>(kUnionFloor) ? united : constant<T>(kUnionFloor));
    return (width > T()) & (height > T()) & (found > T()) ? found : T();
  }

  GFL_MEMBER int32_t by_threshold(int64_t image, int64_t anchor, T most, int32_t gt) const {
    if (!is_valid(image, anchor)) return GFL_OUTSIDE;
    if (most >= positive) return gt;
    const bool background = (most >= low && most < high) || gts.count(image) == 0;
    return background ? GFL_BACKGROUND : GFL_OUTSIDE;
  }
  GFL_MEMBER bool may_claim(T best) const { return (best > T()) & (best >= least); }

  // Where one anchor alone is claimed, a claim is written into assigned_gt as num_gts + gt, above all that the thresholds
  // have left there.
  GFL_MEMBER int32_t as_claim(int64_t gt) const { return static_cast<int32_t>(op.num_gts + gt); }
  GFL_MEMBER void finish(int64_t image, int64_t anchor, int32_t claimed) const {
    int32_t& gt = assigned(image)[anchor];
    T& iou = ious(image)[anchor];
    if (claimed >= 0) {
      gt = claimed;
      iou = best(image)[claimed];
    } else if (gt < 0) {
      iou = T();
    }
  }
};

// Whether two boxes share more than their sides. NaN shares nothing.
template <class T>
GFL_FN bool overlap(const Box<T>& a, const Box<T>& b) {
  return (a.x1 < b.x2) & (a.x2 > b.x1) & (a.y1 < b.y2) & (a.y2 > b.y1);
}

// At least `value`, whatever others do to it meanwhile.
template <class Exchange>
GFL_FN void raise_to(int32_t* address, int32_t value, const Exchange& exchange) {
  int32_t expected = GFL_OUTSIDE;
  for (;;) {
    const int32_t seen = exchange(address, expected, value);
    if (seen == expected || seen >= value) return;
    expected = seen;
  }
}

}  // namespace gfl
