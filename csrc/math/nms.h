// When one box suppresses another.
//
//   IoU   = inter / (area_a + area_b - inter)                    suppressed where IoU > threshold
//   DIoU  = IoU - rho2 / c2                                      see iou.h; suppressed where DIoU > threshold
//
// Boxes that share no area do not meet, whatever the threshold. A box with a NaN or an infinite corner, without area, or
// inverted overlaps nothing: its inter is 0, or its union infinite or NaN, and no comparison with a NaN holds.
//
// The division, which decides exactly, is only reached where inter >= threshold (1 - 1e-3) union.
#pragma once

#include "iou.h"

namespace gfl {

// Two boxes on the way to that decision; T is a scalar or a vector.
template <class T>
struct Meeting {
  T width, height, inter, united;

  GFL_MEMBER Meeting(const Box<T>& a, T area_a, const Box<T>& b, T area_b)
      : width(select(a.x2 < b.x2, a.x2, b.x2) - select(a.x1 > b.x1, a.x1, b.x1)),
        height(select(a.y2 < b.y2, a.y2, b.y2) - select(a.y1 > b.y1, a.y1, b.y1)),
        inter(width * height),
        united((area_a + area_b) - inter) {}
};

template <class T>
GFL_FN T squared_center_distance(const Box<T>& a, const Box<T>& b) {
  const T dx = (a.x1 + a.x2) - (b.x1 + b.x2);
  const T dy = (a.y1 + a.y2) - (b.y1 + b.y2);
  return (dx * dx + dy * dy) * 0.25f;
}

template <class T>
GFL_FN T squared_enclosing_diagonal(const Box<T>& a, const Box<T>& b) {
  const T width = select(a.x2 > b.x2, a.x2, b.x2) - select(a.x1 < b.x1, a.x1, b.x1);
  const T height = select(a.y2 > b.y2, a.y2, b.y2) - select(a.y1 < b.y1, a.y1, b.y1);
  return width * width + height * height;
}

// What is compared with the threshold, for boxes that share area.
template <class T>
GFL_FN T nms_overlap(const Meeting<T>& meeting, const Box<T>& a, const Box<T>& b, int criterion) {
  const T iou = meeting.inter / meeting.united;
  if (criterion == GFL_NMS_IOU) return iou;
  return iou - squared_center_distance(a, b) / squared_enclosing_diagonal(a, b);
}

// A threshold that no pair above the real one is below, for the comparison without a division.
GFL_FN double nms_screen(double threshold) { return threshold * (1.0 - 1e-3); }

template <class T>
GFL_FN bool suppresses(const Box<T>& a, T area_a, const Box<T>& b, T area_b, T threshold, T screen, int criterion) {
  const Meeting<T> meeting(a, area_a, b, area_b);
  if (!(meeting.width > T() && meeting.height > T() && meeting.inter >= screen * meeting.united)) return false;
  return nms_overlap(meeting, a, b, criterion) > threshold;
}

}  // namespace gfl
