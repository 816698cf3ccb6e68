// The paper's unified loss of two probabilities, element by element.
//
//   L = |d|^b ((y_r - y)(-log p_l) + (y - y_l)(-log p_r)),   d = y_l p_l + y_r p_r - y
//   dL/dp_l = b |d|^(b-1) sign(d) y_l E - |d|^b (y_r - y) / p_l,   E = the cross entropy in brackets;  p_r alike.
//
// Logs are clamped at -100 and 1 / p at 1e12, as torch's binary cross entropy does; a log whose factor is 0 adds 0.
#pragma once

#include "class_loss.h"  // the exponent of a modulating factor

namespace gfl {

template <class T>
struct GeneralizedFocal {
  T loss;
  T grad_left;
  T grad_right;
};

template <class T>
GFL_FN T clamped_cross_entropy(T factor, T p) {
  const T log_p = maximum(logarithm(p), constant<T>(-100.0));
  return select(factor == T(), T(), -(factor * log_p));
}

template <class T, class Exponent>
GFL_FN GeneralizedFocal<T> generalized_focal_term(T p_left, T p_right, T y, T y_left, T y_right, const Exponent& beta) {
  const T d = y_left * p_left + y_right * p_right - y;
  const T distance = absolute(d);
  const T near_left = y_right - y;
  const T near_right = y - y_left;
  const T entropy = clamped_cross_entropy(near_left, p_left) + clamped_cross_entropy(near_right, p_right);
  const T modulation = beta.of(distance);
  const T steep = beta.slope(distance) * entropy;
  const T pull = select(d > T(), steep, select(d == T(), T(), -steep));
  const T least = constant<T>(1e-12);
  return {modulation * entropy, pull * y_left - modulation * near_left / maximum(p_left, least),
          pull * y_right - modulation * near_right / maximum(p_right, least)};
}

}  // namespace gfl
