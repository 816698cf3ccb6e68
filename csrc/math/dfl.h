// Distribution focal loss: cross entropy on the two bins around a target, weighted by nearness.
//
//   pos = y - first_bin, l = floor(pos), r = l + 1, w_l = r - pos, w_r = pos - l
//   L = w_l (lse - z_l) + w_r (lse - z_r),   lse = log sum_k e^(z_k)
//   dL/dz_k = (w_l + w_r) p_k - [k = l] w_l - [k = r] w_r
//
// A target on the last bin has that bin alone (w_l = 1, w_r = 0). One outside the bins, or NaN, has NaN weights, so
// that loss and gradient of its row are NaN, and indices that are safe to read.
// Bins at any increasing values v: l is the last with v_l <= y, and the weights are linear between v_l and v_r.
#pragma once

#include "elementary.h"

namespace gfl {

template <class T>
struct DflTarget {
  int left;
  int right;
  T left_weight;
  T right_weight;
};

template <class T>
GFL_FN DflTarget<T> dfl_target(T y, T first_bin, int bins) {
  const T position = y - first_bin;
  const int last = bins - 1;
  const bool inside = position >= T() && position <= static_cast<T>(last);
  const int left = inside ? static_cast<int>(position) : 0;
  if (!inside) return {0, 0, constant<T>(NAN), constant<T>(NAN)};
  if (left == last) return {last, last, constant<T>(1.0), T()};
  return {left, left + 1, static_cast<T>(left + 1) - position, position - static_cast<T>(left)};
}

template <class T>
GFL_FN DflTarget<T> dfl_target(T y, const T* values, int bins) {
  const int last = bins - 1;
  if (!(y >= values[0] && y <= values[last])) return {0, 0, constant<T>(NAN), constant<T>(NAN)};
  int left = 0;
  while (left < last && values[left + 1] <= y) ++left;
  if (left == last) return {last, last, constant<T>(1.0), T()};
  const T width = values[left + 1] - values[left];
  return {left, left + 1, (values[left + 1] - y) / width, (y - values[left]) / width};
}

// Weights given from outside replace nearness; a NaN target stays NaN, and past the last bin there is nothing.
template <class T>
GFL_FN DflTarget<T> dfl_reweighted(DflTarget<T> target, T left_weight, T right_weight) {
  const bool valid = target.left_weight == target.left_weight;
  if (!valid) return target;
  return {target.left, target.right, left_weight, target.left == target.right ? T() : right_weight};
}

// From z_l - m, z_r - m and log sum e^(z - m). A bin of weight 0 says nothing, even where its probability is 0.
template <class T>
GFL_FN T dfl_loss(const DflTarget<T>& target, T shifted_left, T shifted_right, T log_sum) {
  const T left = target.left_weight == T() ? T() : target.left_weight * (log_sum - shifted_left);
  const T right = target.right_weight == T() ? T() : target.right_weight * (log_sum - shifted_right);
  return left + right;
}

// z - m where m is the maximum, with the limits of softmax.h for an infinite m.
template <class T>
GFL_FN T shifted_logit(T z, T most) {
  return z == most ? T() : z - most;
}

}  // namespace gfl
