// The IoU family on aligned boxes (x1, y1, x2, y2), and the gradient by the predicted box.
//
//   inter = iw ih,  iw = max(min(p.x2, t.x2) - max(p.x1, t.x1), 0)      union u = area_p + area_t - inter
//   IoU   = inter / u                     loss: 1 - IoU, 1 - IoU^2 or -log IoU, with IoU >= eps
//   GIoU  = IoU - (c - u) / c             c = area of the enclosing box
//   DIoU  = IoU - rho2 / c2               rho2 = squared distance of the centres, c2 = squared diagonal of the enclosure
//   CIoU  = DIoU - alpha v                v = (2 / pi)^2 (atan(tw / th) - atan(pw / ph))^2, alpha = v / (1 - IoU + v)
//                                         (no gradient through alpha, which is 0 unless IoU > 0.5, or always counts),
//                                         clamped to [-1, 1]
//
// The gradient is the chain rule backwards: d loss -> d inter, d u, d c -> d of the sides -> d of the four corners.
// Where a max or min ties, each side takes half; where a clamp is at its bound, the gradient passes (both as torch).
// eps floors a denominator or is added to it; plain IoU floors its union by 1e-6 whatever eps is, as mmdet does. DIoU and
// CIoU add it to union, squared diagonal and heights under either rule; where the rule is to add, also to alpha's
// denominator, and then nothing but the overlap is clamped, as in torchvision.
#pragma once

#include "../gfl.h"
#include "elementary.h"

namespace gfl {

template <class T>
struct Box {
  T x1, y1, x2, y2;
};

template <class T>
struct BoxLoss {
  T loss;
  T iou;
  Box<T> grad;
};

constexpr double kUnionFloor = 1e-6;

// d max(a, b) / d a and d min(a, b) / d a.
template <class T>
GFL_FN T maximum_slope(T a, T b) {
  return select(a > b, constant<T>(1.0), select(a == b, constant<T>(0.5), T()));
}
template <class T>
GFL_FN T minimum_slope(T a, T b) {
  return maximum_slope(b, a);
}

template <class T>
GFL_FN T clamped(T length) {
  return select(length < T(), T(), length);
}
template <class T>
GFL_FN T clamped_slope(T length) {
  return select(length >= T(), constant<T>(1.0), T());
}

template <class T>
GFL_FN T box_area(const Box<T>& box) {
  return (box.x2 - box.x1) * (box.y2 - box.y1);
}

// What two boxes share, on the way forward.
template <class T>
struct Overlap {
  T raw_width, raw_height;  // before the clamp at 0
  T width, height;
  T area;
  T sum;  // area_p + area_t - inter: the union before eps

  GFL_MEMBER Overlap(const Box<T>& p, const Box<T>& t)
      : raw_width(minimum(p.x2, t.x2) - maximum(p.x1, t.x1)),
        raw_height(minimum(p.y2, t.y2) - maximum(p.y1, t.y1)),
        width(clamped(raw_width)),
        height(clamped(raw_height)),
        area(width * height),
        sum(box_area(p) + box_area(t) - area) {}
};

// The quality target and box_iou.
template <class T>
GFL_FN T plain_iou(const Box<T>& p, const Box<T>& t, T union_floor) {
  const Overlap<T> overlap(p, t);
  return overlap.area / maximum(overlap.sum, union_floor);
}

// d loss / d p from d loss / d inter (with the union's part) and d loss / d area_p.
template <class T>
GFL_FN Box<T> overlap_gradient(const Box<T>& p, const Box<T>& t, const Overlap<T>& overlap, T d_inter, T d_area) {
  const T d_width = d_inter * overlap.height * clamped_slope(overlap.raw_width);
  const T d_height = d_inter * overlap.width * clamped_slope(overlap.raw_height);
  const T area_x = d_area * (p.y2 - p.y1);
  const T area_y = d_area * (p.x2 - p.x1);
  return {-(d_width * maximum_slope(p.x1, t.x1)) - area_x, -(d_height * maximum_slope(p.y1, t.y1)) - area_y,
          d_width * minimum_slope(p.x2, t.x2) + area_x, d_height * minimum_slope(p.y2, t.y2) + area_y};
}

// The box that encloses both.
template <class T>
struct Enclosure {
  T width, height;
  T width_slope, height_slope;  // of the clamp

  GFL_MEMBER Enclosure(const Box<T>& p, const Box<T>& t, bool clamp = true)
      : width(maximum(p.x2, t.x2) - minimum(p.x1, t.x1)),
        height(maximum(p.y2, t.y2) - minimum(p.y1, t.y1)),
        width_slope(clamp ? clamped_slope(width) : constant<T>(1.0)),
        height_slope(clamp ? clamped_slope(height) : constant<T>(1.0)) {
    width = clamp ? clamped(width) : width;
    height = clamp ? clamped(height) : height;
  }
};

template <class T>
GFL_FN void add_enclosure_gradient(const Box<T>& p, const Box<T>& t, const Enclosure<T>& enclosure, T d_width,
                                   T d_height, Box<T>& grad) {
  const T x = d_width * enclosure.width_slope;
  const T y = d_height * enclosure.height_slope;
  grad.x1 = grad.x1 - x * minimum_slope(p.x1, t.x1);
  grad.y1 = grad.y1 - y * minimum_slope(p.y1, t.y1);
  grad.x2 = grad.x2 + x * maximum_slope(p.x2, t.x2);
  grad.y2 = grad.y2 + y * maximum_slope(p.y2, t.y2);
}

// A denominator under its eps rule: as divisor, as the area that a gap is measured with, and how much of a change in
// the raw area reaches both.
template <class T>
struct Guarded {
  T value;
  T area;
  T slope;

  GFL_MEMBER Guarded(T raw, T eps, bool add)
      : value(add ? raw + eps : maximum(raw, eps)),
        area(add ? raw : value),
        slope(add ? constant<T>(1.0) : maximum_slope(raw, eps)) {}
};

template <class T>
GFL_FN BoxLoss<T> plain_iou_loss(const Box<T>& p, const Box<T>& t, const gfl_iou_options& options) {
  const T one = constant<T>(1.0);
  const bool add = options.eps_rule == GFL_EPS_ADD;
  const T eps = constant<T>(options.eps);
  const Overlap<T> overlap(p, t);
  const Guarded<T> united(overlap.sum, add ? eps : constant<T>(kUnionFloor), add);
  const T iou = overlap.area / united.value;
  const T least = select(iou < eps, eps, iou);
  const T passed = select(iou >= eps, one, T());
  T loss = one - least;
  T d_iou = -passed;
  if (options.transform == GFL_IOU_SQUARE) {
    loss = one - least * least;
    d_iou = -(least + least) * passed;
  } else if (options.transform == GFL_IOU_LOG) {
    loss = -logarithm(least);
    d_iou = -passed / least;
  }
  const T d_union = -(d_iou * iou / united.value) * united.slope;
  return {loss, iou, overlap_gradient(p, t, overlap, d_iou / united.value - d_union, d_union)};
}

template <class T>
GFL_FN BoxLoss<T> giou_loss(const Box<T>& p, const Box<T>& t, const gfl_iou_options& options) {
  const T one = constant<T>(1.0);
  const bool add = options.eps_rule == GFL_EPS_ADD;
  const T eps = constant<T>(options.eps);
  const Overlap<T> overlap(p, t);
  const Enclosure<T> enclosure(p, t);
  const Guarded<T> united(overlap.sum, eps, add);
  const Guarded<T> enclosed(enclosure.width * enclosure.height, eps, add);
  const T iou = overlap.area / united.value;
  const T gap = enclosed.area - united.area;
  const T loss = one - (iou - gap / enclosed.value);
  // loss = 1 - inter / u + (c - u) / c
  const T d_inter = -one / united.value;
  const T d_union = (iou / united.value - one / enclosed.value) * united.slope;
  const T d_enclosed = (one - gap / enclosed.value) / enclosed.value * enclosed.slope;
  BoxLoss<T> result{loss, iou, overlap_gradient(p, t, overlap, d_inter - d_union, d_union)};
  add_enclosure_gradient(p, t, enclosure, d_enclosed * enclosure.height, d_enclosed * enclosure.width, result.grad);
  return result;
}

// DIoU, and CIoU with its shape term.
template <class T>
GFL_FN BoxLoss<T> distance_iou_loss(const Box<T>& p, const Box<T>& t, const gfl_iou_options& options) {
  const T one = constant<T>(1.0);
  const T eps = constant<T>(options.eps);
  const bool add = options.eps_rule == GFL_EPS_ADD;
  const Overlap<T> overlap(p, t);
  const Enclosure<T> enclosure(p, t, !add);
  const T united = overlap.sum + eps;
  const T iou = overlap.area / united;
  const T diagonal = enclosure.width * enclosure.width + enclosure.height * enclosure.height + eps;
  const T dx = (t.x1 + t.x2) - (p.x1 + p.x2);
  const T dy = (t.y1 + t.y2) - (p.y1 + p.y2);
  const T rho = dx * dx * 0.25f + dy * dy * 0.25f;
  T similarity = iou - rho / diagonal;

  T passed = one;
  T d_pw = T();
  T d_ph = T();
  if (options.iou_kind == GFL_CIOU) {
    const T pw = p.x2 - p.x1;
    const T ph = p.y2 - p.y1 + eps;
    const T angle = arctangent((t.x2 - t.x1) / (t.y2 - t.y1 + eps)) - arctangent(pw / ph);
    const T factor = constant<T>(0.40528473456935109);  // 4 / pi^2
    const T v = factor * (angle * angle);
    const T apart = clamped(one - iou) + (add ? eps : T());
    const T least = options.alpha_rule == GFL_ALPHA_ALWAYS ? -constant<T>(HUGE_VAL) : constant<T>(0.5);
    const T alpha = select(iou > least, select(v > T(), v / (apart + v), T()), T());
    similarity = iou - (rho / diagonal + alpha * v);
    if (!add) {
      passed = select(similarity >= -one, select(similarity <= one, one, T()), T());
      similarity = select(similarity < -one, -one, select(similarity > one, one, similarity));
    }
    // loss holds + alpha v; d atan(pw / ph) = (ph d_pw - pw d_ph) / (pw^2 + ph^2)
    const T d_angle = -(alpha * factor * (angle + angle)) / (pw * pw + ph * ph);
    d_pw = d_angle * ph;
    d_ph = -(d_angle * pw);
  }

  const T d_union = iou / united;
  BoxLoss<T> result{one - similarity, iou, overlap_gradient(p, t, overlap, -one / united - d_union, d_union)};
  const T d_diagonal = -(rho / diagonal) / diagonal;
  add_enclosure_gradient(p, t, enclosure, d_diagonal * (enclosure.width + enclosure.width),
                         d_diagonal * (enclosure.height + enclosure.height), result.grad);
  const T d_x = -(dx * 0.5f) / diagonal;
  const T d_y = -(dy * 0.5f) / diagonal;
  result.grad = {(result.grad.x1 + d_x - d_pw) * passed, (result.grad.y1 + d_y - d_ph) * passed,
                 (result.grad.x2 + d_x + d_pw) * passed, (result.grad.y2 + d_y + d_ph) * passed};
  return result;
}

template <class T>
GFL_FN BoxLoss<T> box_loss(const Box<T>& p, const Box<T>& t, const gfl_iou_options& options) {
  if (options.iou_kind == GFL_IOU) return plain_iou_loss(p, t, options);
  if (options.iou_kind == GFL_GIOU) return giou_loss(p, t, options);
  return distance_iou_loss(p, t, options);
}

}  // namespace gfl
