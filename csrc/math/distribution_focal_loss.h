// Distribution focal loss: cross entropy on the two bins around a target, weighted by nearness.
//
//   pos = y - first_bin, l = floor(pos), r = l + 1, w_l = r - pos, w_r = pos - l
//   L = w_l (lse - x_l) + w_r (lse - x_r),   lse = log sum_k e^(x_k)
//   dL/dx_k = (w_l + w_r) p_k - [k = l] w_l - [k = r] w_r
//
// A target on the last bin has that bin alone (w_l = 1, w_r = 0). One outside the bins, or NaN, has NaN weights, so
// that loss and gradient of its row are NaN, and indices that are safe to read.
// Bins at any increasing values v: l is the last with v_l <= y, and the weights are linear between v_l and v_r.
//
// Indices are whole numbers in T, so that a vector of rows can compare them with k.
#pragma once

#include "softmax.h"

namespace gfl {

template <class T>
struct DflTarget {
  T left;
  T right;
  T left_weight;
  T right_weight;
};

template <class T>
GFL_FN DflTarget<T> dfl_target(T y, T first_bin, int bins) {
  const T last = constant<T>(bins - 1);
  const T nan = constant<T>(NAN);
  const T position = y - first_bin;
  const T inside = select(position >= T(), select(position <= last, T(), nan), nan);
  const T safe = select(inside == T(), position, T());
  const T left = truncated(safe);
  const T right = select(left < last, left + 1.0f, last);
  return {left, right, (left + 1.0f) - safe + inside, safe - left + inside};
}

// values(k) is a scalar.
template <class T, class Values>
GFL_FN DflTarget<T> dfl_target(T y, const Values& values, int bins) {
  const T nan = constant<T>(NAN);
  const T zero = T();
  T left = zero;
  T right = constant<T>(1.0);
  T below = zero + values(0);
  T above = zero + values(1);
  for (int k = 1; k < bins; ++k) {
    const int next = k + 1 < bins ? k + 1 : k;
    const T value = zero + values(k);
    left = select(value <= y, constant<T>(k), left);
    right = select(value <= y, constant<T>(next), right);
    below = select(value <= y, value, below);
    above = select(value <= y, zero + values(next), above);
  }
  const T inside = select(y >= zero + values(0), select(y <= zero + values(bins - 1), zero, nan), nan);
  const T width = above - below;
  const T on_last = constant<T>(1.0);
  return {left, right, select(left == right, on_last, (above - y) / width) + inside,
          select(left == right, zero, (y - below) / width) + inside};
}

// Weights given from outside replace nearness; a NaN target stays NaN, and past the last bin there is nothing.
template <class T>
GFL_FN DflTarget<T> dfl_reweighted(DflTarget<T> target, T left_weight, T right_weight) {
  const T inside = (target.left_weight - target.left_weight) + (target.right_weight - target.right_weight);
  return {target.left, target.right, left_weight + inside,
          select(target.left == target.right, T(), right_weight) + inside};
}

// What a bin has of the target: w_l, w_r or 0.
template <class T>
GFL_FN T dfl_share(const DflTarget<T>& target, T k) {
  return select(k == target.left, target.left_weight, select(k == target.right, target.right_weight, T()));
}

template <class T>
struct DflSums {
  T sum;  // of the e_k
  T at_left;
  T at_right;
};

// Leaves e_k in place of x_k.
template <class T, class Bins>
GFL_FN DflSums<T> dfl_exponentials(const Bins& x, int bins, T most, const DflTarget<T>& target) {
  const T shift = bins_shift(x, bins, most);
  T sum = T();
  T at_left = T();
  T at_right = T();
  T index = T();
  for (int k = 0; k < bins; ++k) {
    const T z = x(k) - shift;
    at_left = select(index == target.left, z, at_left);
    at_right = select(index == target.right, z, at_right);
    const T e = exponential(z);
    x(k) = e;
    sum = sum + e;
    index = index + 1.0f;
  }
  return {sum, at_left, at_right};
}

template <class T>
struct DflRow {
  T loss;
  T inverse_sum;
};

// A bin of weight 0 says nothing, even where its probability is 0.
template <class T>
GFL_FN DflRow<T> dfl_row(const DflSums<T>& sums, const DflTarget<T>& target) {
  const T log_sum = logarithm(sums.sum);
  const T left = select(target.left_weight == T(), T(), target.left_weight * (log_sum - sums.at_left));
  const T right = select(target.right_weight == T(), T(), target.right_weight * (log_sum - sums.at_right));
  return {left + right, reciprocal(sums.sum)};
}

// The same where no maximum was taken: a sum of e^(x_k) that is an ordinary number, and the logits at the two bins.
template <class T>
GFL_FN DflRow<T> dfl_row_unshifted(T sum, T x_left, T x_right, T left_weight, T right_weight) {
  const SplitLogarithm<T> log_sum = split_logarithm(sum);
  const T left = select(left_weight == T(), T(), left_weight * logarithm_less(log_sum, x_left));
  const T right = select(right_weight == T(), T(), right_weight * logarithm_less(log_sum, x_right));
  return {left + right, reciprocal(sum)};
}

// All of it at once. Leaves e_k in place of x_k.
template <class T, class Bins>
GFL_FN DflRow<T> dfl_forward(const Bins& x, int bins, const DflTarget<T>& target) {
  const T most = bins_maximum<T>(x, bins);
  return dfl_row(dfl_exponentials(x, bins, most, target), target);
}

// Leaves upstream * dL/dx_k in place of e_k.
template <class T, class Bins>
GFL_FN void dfl_gradient(const Bins& e, int bins, const DflTarget<T>& target, T inverse_sum, T upstream) {
  const T factor = upstream * (target.left_weight + target.right_weight) * inverse_sum;
  const DflTarget<T> scaled{target.left, target.right, upstream * target.left_weight, upstream * target.right_weight};
  T index = T();
  for (int k = 0; k < bins; ++k) {
    e(k) = e(k) * factor - dfl_share(scaled, index);
    index = index + 1.0f;
  }
}

}  // namespace gfl
