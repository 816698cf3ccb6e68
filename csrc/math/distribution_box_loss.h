// Four edge distributions of one positive against its target box, in units of its stride.
//
//   point (x, y) = anchor / s, box t = target / s; E_l, E_t, E_r, E_b the expectations of the four distributions
//   decoded   p = (x - E_l, y - E_t, x + E_r, y + E_b)          returned in pixels: s p
//   L_iou     box_loss(p, t), see iou.h;   dL/dE_l = -dL/dx1, dL/dE_t = -dL/dy1, dL/dE_r = dL/dx2, dL/dE_b = dL/dy2
//   quality   the plain IoU of p and t, its union floored
//   L_dfl     the mean over the sides of the distribution focal loss (distribution_focal_loss.h) of the target's distances
//             (x - t.x1, y - t.y1, t.x2 - x, t.y2 - y), clamped to [0, most]; a NaN stays NaN
//
//   One bin is no distribution: E is its value, and in place of L_dfl stands L_1, the mean over the sides of
//   |E - d| s / length, where d is the target's distance, not clamped, and length the image's width or height
//
// With E = sum_k p_k k over a softmax p of logits z:  dE/dz_k = p_k (k - E), hence for the logits of one side
//   dL/dz_k = g_iou dL_iou/dE p_k (k - E) + g_dfl / 4 ((w_l + w_r) p_k - [k = l] w_l - [k = r] w_r)
#pragma once

#include "distribution_focal_loss.h"
#include "iou.h"

namespace gfl {

constexpr int kSides = 4;  // left, top, right, bottom: the order of the channels

template <class T>
struct BoxTarget {
  T x, y;      // the anchor point
  T stride;    // pixels per unit
  Box<T> box;  // all but the stride in stride units
};

template <class T>
GFL_FN BoxTarget<T> box_target(T anchor_x, T anchor_y, const Box<T>& pixels, T stride) {
  return {anchor_x / stride,
          anchor_y / stride,
          stride,
          {pixels.x1 / stride, pixels.y1 / stride, pixels.x2 / stride, pixels.y2 / stride}};
}

GFL_FN bool is_horizontal(int side) { return side == 0 || side == 2; }

// From the anchor point to side 0 .. 3 of the target.
template <class T>
GFL_FN T side_distance(const BoxTarget<T>& target, int side) {
  const bool horizontal = is_horizontal(side);
  const T point = horizontal ? target.x : target.y;
  const T near = horizontal ? target.box.x1 : target.box.y1;
  const T far = horizontal ? target.box.x2 : target.box.y2;
  return side < 2 ? point - near : far - point;
}

// The distance whose bins carry the weight of a side. torch.clamp keeps a NaN, and so do these comparisons.
template <class T>
GFL_FN T target_distance(const BoxTarget<T>& target, int side, T most) {
  const T distance = side_distance(target, side);
  return select(distance < T(), T(), select(distance > most, most, distance));
}

template <class T>
struct DistributionBox {
  T loss;          // IoU family
  T quality;       // plain IoU
  Box<T> pixels;   // the decoded box
  T grad[kSides];  // d loss / d expectation
};

template <class T>
GFL_FN DistributionBox<T> distribution_box(const BoxTarget<T>& target, const T (&expectation)[kSides],
                                           const gfl_iou_options& options) {
  const Box<T> decoded{target.x - expectation[0], target.y - expectation[1], target.x + expectation[2],
                       target.y + expectation[3]};
  const BoxLoss<T> iou = box_loss(decoded, target.box, options);
  const T s = target.stride;
  return {iou.loss,
          plain_iou(decoded, target.box, constant<T>(kUnionFloor)),
          {decoded.x1 * s, decoded.y1 * s, decoded.x2 * s, decoded.y2 * s},
          {-iou.grad.x1, -iou.grad.y1, iou.grad.x2, iou.grad.y2}};
}

// The width and height of the image of a pyramid, in pixels.
template <class T>
struct ImageSize {
  T width, height;

  GFL_MEMBER explicit ImageSize(const gfl_levels& levels)
      : width(static_cast<T>(levels.count > 0 ? levels.level[0].width * levels.level[0].stride : 0.0)),
        height(static_cast<T>(levels.count > 0 ? levels.level[0].height * levels.level[0].stride : 0.0)) {}
  GFL_MEMBER T along(int side) const { return is_horizontal(side) ? width : height; }
};

template <class T>
struct DistanceLoss {
  T loss;
  T slope;  // d loss / d E
};

// L_1 of one side, where E is the distance itself; `length` is the image's.
template <class T>
GFL_FN DistanceLoss<T> distance_loss(const BoxTarget<T>& target, int side, T distance, T length) {
  const T share = target.stride / length;
  const T off = distance - side_distance(target, side);
  return {absolute(off) * share, select(off > T(), share, select(off < T(), -share, off))};
}

// Leaves in place of the e_k of one side (softmax.h) what the box says through the expectation and what the distribution
// focal loss says: through_box is g_iou dL_iou/dE, through_bins is g_dfl / 4.
template <class T, class Bins>
GFL_FN void distribution_box_gradient(const Bins& e, int bins, const DflTarget<T>& target, T inverse_sum, T expectation,
                                      T through_box, T through_bins) {
  const T pull = through_box * inverse_sum;
  const T spread = through_bins * (target.left_weight + target.right_weight) * inverse_sum;
  const DflTarget<T> scaled{target.left, target.right, through_bins * target.left_weight,
                            through_bins * target.right_weight};
  T index = T();
  for (int k = 0; k < bins; ++k) {
    e(k) = e(k) * (pull * (index - expectation) + spread) - dfl_share(scaled, index);
    index = index + 1.0f;
  }
}

}  // namespace gfl
